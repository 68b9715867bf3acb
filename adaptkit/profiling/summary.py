"""All figures of one model together, from its file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.export.files import file_bytes, read_model
from adaptkit.export.onnx import export_onnx
from adaptkit.profiling.energy import energy_per_inference
from adaptkit.profiling.graph import file_cost
from adaptkit.profiling.latency import compare
from adaptkit.profiling.layer_table import LayerTable, layer_table
from adaptkit.profiling.memory import peak_memory
from adaptkit.profiling.parameters import count_parameters, graph_constants
from adaptkit.report.schema import Figures
from adaptkit.specs import ProfileSpec

__all__ = ["LayerTable", "figures", "layer_table", "profile_file"]

_IMAGE = (3, 224, 224)


def figures(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    onnx_path: Path,
    baseline_path: Path,
    profile: ProfileSpec,
) -> Figures:
    """Measure a model and its file, alternately with the baseline's file.

    Everything but the number of parameters comes from the file: MACs, bytes, latency, memory, energy.

    Args:
        model: Where the file came from.
        example_inputs: Not used for measuring: inputs are made from what the file says it takes.
        onnx_path: The file.
        baseline_path: The file to compare with; the same path where this is the baseline.
        profile: What to measure.

    Raises:
        ModelError: A file cannot be run.
    """
    del example_inputs
    return _measure(onnx_path, baseline_path, profile, count_parameters(model))


def profile_file(path_or_spec: str, profile: ProfileSpec) -> Figures:
    """Measure an ONNX file, the model of a run folder beside its baseline, or an untrained model by name.

    Args:
        path_or_spec: A file, a run folder, `torchvision:NAME` or `zoo:NAME`. The parameters of a file are its constants
            (normalizations that were folded are gone), those of a named model are PyTorch's.
        profile: What to measure.

    Raises:
        ModelError: Nothing is there under this name, or it cannot be run.
    """
    path = Path(path_or_spec)
    if path.is_dir():
        return _profile_folder(path, profile)
    if path.is_file():
        return _measure(path, path, profile, count_constants(path))
    source, colon, name = path_or_spec.partition(":")
    if not colon or source not in ("torchvision", "zoo"):
        raise ModelError(f"{path_or_spec} is not there: give an ONNX file, a run folder, torchvision:NAME or zoo:NAME")
    model, shape = _torchvision(name) if source == "torchvision" else _zoo(name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{name}.onnx")
        export_onnx(model, (torch.zeros(2, *shape),), file)
        return _measure(file, file, profile, count_parameters(model))


def _profile_folder(folder: Path, profile: ProfileSpec) -> Figures:
    path, baseline = folder / "model.onnx", folder / "baseline.onnx"
    if not path.is_file():
        raise ModelError(f"{folder} holds no model.onnx: give an ONNX file or the folder of a finished run")
    return _measure(path, baseline if baseline.is_file() else path, profile, count_constants(path))


def _measure(path: Path, baseline: Path, profile: ProfileSpec, parameters: int) -> Figures:
    paths = [path] if path == baseline else [baseline, path]
    found = compare(paths, profile)[-1]
    energy = energy_per_inference(path, threads=profile.threads[0])
    return Figures(
        parameters=parameters,
        macs=file_cost(path).macs,
        bytes=file_bytes(path),
        latency_ms=found.latency_ms,
        speedup=found.speedup,
        peak_memory_bytes=peak_memory(path, profile.batch_sizes[0]),
        energy_mj=energy.millijoules,
        energy_method=energy.method,
    )


def count_constants(path: Path) -> int:
    """Count the values of the constants that are no shapes, scales or zero points."""
    return graph_constants(read_model(path, weights_beside=False).graph)


def _torchvision(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ModelError(
            f"torchvision has no classification model called {name}{_close(name, models.list_models(module=models))}"
        )
    weights = models.get_model_weights(name)
    sizes = [entry.transforms().crop_size[0] for entry in weights]
    shape = (_IMAGE[0], sizes[0], sizes[0]) if sizes else _IMAGE
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, **extra).eval(), shape


def _zoo(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    from adaptkit_zoo import index

    builders = index.builders()
    if name not in builders:
        raise ModelError(f"the zoo has no model called {name}{_close(name, sorted(builders))}")
    return builders[name]().eval(), index.input_shape(name)


def _close(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    found = get_close_matches(name, known, n=1)
    return f": did you mean {found[0]}?" if found else f": it has {', '.join(known[:8])}, …"
