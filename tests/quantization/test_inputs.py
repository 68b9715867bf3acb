"""What goes into a model: token numbers, several tensors, and what cannot be quantized."""

import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch import nn

from adaptkit.loading.saved import load, save
from adaptkit.quantization import (
    DynamicQuantization,
    QuantizationAwareTraining,
    StaticQuantization,
    WeightOnlyQuantization,
)
from adaptkit.technique import Context
from tests.quantization.nets import exported, run

SAMPLES = 64


class Words(nn.Module):
    """Token numbers to classes: an embedding, two linear layers and a mean over the words."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.inner, self.head = nn.Embedding(50, 32), nn.Linear(32, 48), nn.Linear(48, 4)

    def forward(self, tokens):
        return self.head(torch.relu(self.inner(self.words(tokens))).mean(1))


@pytest.fixture
def tokens():
    return torch.randint(0, 50, (SAMPLES, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "technique",
    [
        StaticQuantization(calibration=SAMPLES),
        DynamicQuantization(),
        WeightOnlyQuantization(),
        QuantizationAwareTraining(calibration=SAMPLES, epochs=1, fit={"learning_rate": 0.01}),
    ],
    ids=lambda technique: technique.name,
)
def test_token_numbers_reach_the_file_and_the_saved_model(technique, tokens, tmp_path):
    model, targets = Words().eval(), torch.zeros(SAMPLES, dtype=torch.long)
    exact = model(tokens).detach().numpy()
    data = (tokens, targets)
    quantized = technique.apply(model, Context(example_inputs=(tokens[:1],), calibration=data, train=data))
    quantized.eval()
    simulated = quantized(tokens).detach()
    proto = exported(quantized, tokens)
    assert np.abs(run(proto, tokens) - simulated.numpy()).max() < 0.05 * exact.std()
    floats = [list(t.dims) for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 2]
    assert floats == [[50, 32]]
    save(quantized, Words(), tmp_path)
    assert torch.equal(load(Words, tmp_path)(tokens), simulated)
