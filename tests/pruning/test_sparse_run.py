"""A whole run: zeros that one step makes are in the file that the last step leaves."""

import onnx
import pytest
import torch

from adaptkit.export.files import read_model
from adaptkit.loading.saved import float_model, load
from adaptkit.pipeline import compress
from adaptkit.pruning.masks import marked
from adaptkit.recipe import parse_recipe
from adaptkit_zoo.digits import lenet5_digits

RECIPE = """
version: 1
name: sparse
model: {zoo: lenet5_digits}
data: {digits: true, validation: 100, calibration: 100}
steps:
  - prune.magnitude: {sparsity: 0.9, recovery_epochs: 1, fit: {learning_rate: 0.01}}
  - distill.logits: {epochs: 1, fit: {learning_rate: 0.01}}
  - quantize.static: {calibration: 64}
export: {min_agreement: 0.5}
profile: {repeats: 3, warmup: 1}
"""


def test_zeros_stay_to_the_end_and_the_report_says_so(tmp_path):
    report = compress(parse_recipe(RECIPE), tmp_path, progress=False)
    model = float_model(load(lenet5_digits, tmp_path))
    promised = sum(int((weight == 0).sum()) for weight in marked(model).values())
    assert promised > 0.85 * sum(weight.numel() for weight in marked(model).values())
    assert any(
        note.startswith(f"{promised:,} of ") and "all of them are there in model.onnx" in note for note in report.notes
    )
    assert not any("lost" in note for step in report.steps for note in step.notes)
    assert onnx.load(tmp_path / "model.onnx").graph.sparse_initializer
    assert not read_model(tmp_path / "model.onnx").graph.sparse_initializer
    sizes = [report.baseline.bytes, *(step.figures.bytes for step in report.steps)]
    assert sizes[1] < 0.4 * sizes[0]
    assert report.final.macs == report.baseline.macs


@pytest.mark.slow
def test_a_step_that_undoes_zeros_is_named(tmp_path, monkeypatch):
    from adaptkit.distillation import LogitDistillation

    def undo(self, model, context):
        with torch.no_grad():
            for weight in marked(model).values():
                weight.add_(0.01)
        return model

    monkeypatch.setattr(LogitDistillation, "apply", undo)
    report = compress(parse_recipe(RECIPE, overrides=["steps.0.recovery_epochs=0"]), tmp_path, progress=False)
    assert any("zeros of" in note and note.endswith("were lost") for note in report.steps[1].notes)
