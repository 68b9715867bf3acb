"""A network that always runs whole: what conditional computation starts from."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import onnx
from torch import Tensor, nn

from adaptkit.export.onnx import final_onnx
from adaptkit.export.packaging import Packaging
from adaptkit.metrics.task import first_output
from adaptkit.runtime.folder import FILE


class PlainArtifact:
    """A network as one file.

    Args:
        network: A classifier, float or quantized.
        example_inputs: Of one call, batch first.
        opset: ONNX operator set.

    Example:
        >>> import torch
        >>> artifact = PlainArtifact(nn.Linear(4, 3), (torch.zeros(2, 4),))
        >>> artifact.paths, artifact.parts[0][1], artifact.answers(torch.zeros(5, 4))[0].shape
        (('whole',), 1.0, torch.Size([5, 3]))
    """

    paths = ("whole",)

    def __init__(self, network: nn.Module, example_inputs: tuple[Tensor, ...], opset: int = 20) -> None:
        self.network, self.example_inputs, self.opset = network.eval(), example_inputs, opset

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The network as an ONNX model, exported once."""
        return final_onnx(self.network, self.example_inputs, self.opset)

    @property
    def parts(self) -> list[tuple[onnx.ModelProto, float]]:
        """The network, which runs for every sample."""
        return [(self.proto, 1.0)]

    def answers(self, x: Tensor) -> list[Tensor | None]:
        """Give what the network answers."""
        return [first_output(self.network(x))]

    def write(self, folder: Path, packaging: Packaging) -> None:
        """Write model.onnx."""
        whole = onnx.ModelProto.FromString(self.proto.SerializeToString())  # writing changes how constants are held
        packaging.write(whole, folder / FILE)
