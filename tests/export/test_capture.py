"""Capturing models for any batch size."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.export.capture import capture_program
from adaptkit.export.onnx import to_onnx


class Siamese(nn.Module):
    """Inputs that are joined along the batch for one pass, and parted again by `part`."""

    def __init__(self, part):
        super().__init__()
        self.encoder, self.part = nn.Linear(3, 4), part

    def forward(self, *inputs):
        parts = self.part(torch.relu(self.encoder(torch.cat(inputs))), inputs)
        return torch.stack(list(parts)).cumsum(0).prod(0)


PARTS = {
    "chunk": lambda x, inputs: x.chunk(len(inputs)),
    "chunk, by name": lambda x, inputs: torch.chunk(dim=0, chunks=len(inputs), input=x),
    "split": lambda x, inputs: x.split(inputs[0].shape[0]),
    "split, by name": lambda x, inputs: torch.split(split_size_or_sections=inputs[1].shape[0], tensor=x),
    "split in sizes": lambda x, inputs: x.split([each.shape[0] for each in inputs]),
    "features": lambda x, inputs: [torch.cat(x.chunk(2, dim=1), 1).split(4, -1)[0]],
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
@pytest.mark.parametrize("count", [2, 3])
def test_joined_inputs_are_parted_at_every_batch_size(part, count):
    model = Siamese(part).eval()
    proto = to_onnx(model, tuple(torch.randn(2, 3) for _ in range(count)))
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        inputs = [torch.randn(batch, 3) for _ in range(count)]
        feeds = {value.name: x.numpy() for value, x in zip(session.get_inputs(), inputs, strict=True)}
        np.testing.assert_allclose(session.run(None, feeds)[0], model(*inputs).detach(), atol=1e-5)


def test_the_hook_goes_away():
    model = Siamese(PARTS["chunk"])
    capture_program(model, (torch.zeros(2, 3), torch.zeros(2, 3)))
    assert not model._forward_pre_hooks


class Fixed(nn.Module):
    """Halves that only a batch of two has."""

    def forward(self, x):
        one, two = x.chunk(2)
        return one + two


def test_a_model_that_fixes_the_batch_size_is_refused():
    with pytest.raises(ModelError, match="The model fixes the batch size"):
        to_onnx(Fixed(), (torch.zeros(2, 3),))


def test_inputs_have_one_batch_size():
    with pytest.raises(ModelError, match="the inputs have batch sizes 2 and 4, which must be the same") as caught:
        to_onnx(Siamese(PARTS["chunk"]), (torch.zeros(2, 3), torch.zeros(4, 3)))
    assert "\n" not in str(caught.value)
