"""Cheap features of images, as ONNX nodes, so that their time is real and counted.

With b the brightness, the mean over the channels of the model's input:

- `mean`: of each channel;
- `deviation`: of each channel;
- `edges`: mean |Δb| of neighbours, across and down;
- `histogram`: share of pixels with b below each of seven levels, which cut the b of the samples into eighths;
- `thumbnail`: b in 4 × 4 fields.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from adaptkit.conditional.thresholds import Array
from adaptkit.errors import ModelError
from adaptkit.export.nodes import Nodes
from adaptkit.runtime.session import open_session

FEATURES = "features"
_LEVELS = 8
_FIELDS = 4
_BATCH = 256


class ImageFeatures:
    """The features of images of one shape.

    Args:
        shape: C × H × W.
        levels: Of brightness, for the histogram.

    Raises:
        ModelError: The samples are no images of at least 2 × 2 pixels.
    """

    def __init__(self, shape: tuple[int, ...], levels: Array) -> None:
        if len(shape) != 3 or min(shape[1:]) < 2:
            raise ModelError(
                f"selector looks at images, C × H × W of at least 2 × 2 pixels; the samples are {list(shape)}: use a "
                "cascade"
            )
        self.shape, self._levels = shape, levels.astype(np.float32)
        self._kernel = [-(-size // _FIELDS) for size in shape[1:]]
        across, down = ((size - k) // k + 1 for size, k in zip(shape[1:], self._kernel, strict=True))
        self._groups: dict[str, tuple[int, Callable[[Nodes, str], str]]] = {
            "mean": (shape[0], lambda nodes, _: nodes.mean("input", [2, 3])),
            "deviation": (shape[0], lambda nodes, _: _deviation(nodes)),
            "edges": (2, _edges),
            "histogram": (len(levels), self._histogram),
            "thumbnail": (across * down, self._thumbnail),
        }

    @classmethod
    def of(cls, x: Array) -> ImageFeatures:
        """Make features for images like these, N × C × H × W."""
        if x.ndim != 4:
            return cls(x.shape[1:], np.zeros(0))
        shares = np.arange(1, _LEVELS) / _LEVELS
        return cls(x.shape[1:], np.quantile(x.mean(axis=1), shares))

    @property
    def names(self) -> list[str]:
        """Of all features, in order."""
        return [f"{name} {number}" for name, (size, _) in self._groups.items() for number in range(size)]

    def add(self, nodes: Nodes, chosen: list[int]) -> str:
        """Add nodes that compute some of the features, N × chosen, from the graph's `input`."""
        brightness, columns, found, start, offset = nodes.mean("input", [1], keepdims=1), [], [], 0, 0
        for size, build in self._groups.values():
            own = [number - start for number in chosen if start <= number < start + size]
            if own:
                found.append(build(nodes, brightness))
                columns += [offset + number for number in own]
                offset += size
            start += size
        together = nodes.add("Concat", *found, axis=1)
        return nodes.add("Gather", together, nodes.constant(np.array(columns, np.int64)), axis=1)

    def compute(self, x: Array) -> Array:
        """Give all features of images, N × F, by the same nodes that the premodel has."""
        session = open_session(self.model().SerializeToString(), threads=1)
        parts = [session.run(None, {"input": x[i : i + _BATCH]})[0] for i in range(0, len(x), _BATCH)]
        return np.concatenate(parts)

    def model(self, opset: int = 20) -> onnx.ModelProto:
        """Give a model that computes all of them."""
        nodes, every = Nodes("features"), list(range(len(self.names)))
        return nodes.model(self.shape, self.add(nodes, every), FEATURES, len(every), opset)

    def _histogram(self, nodes: Nodes, brightness: str) -> str:
        levels = nodes.constant(self._levels.reshape(1, -1, 1, 1))
        below = nodes.add("Cast", nodes.add("Less", brightness, levels), to=onnx.TensorProto.FLOAT)
        return nodes.mean(below, [2, 3])

    def _thumbnail(self, nodes: Nodes, brightness: str) -> str:
        fields = nodes.add("AveragePool", brightness, kernel_shape=self._kernel, strides=self._kernel)
        return nodes.add("Flatten", fields, axis=1)


def _deviation(nodes: Nodes) -> str:
    apart = nodes.add("Sub", "input", nodes.mean("input", [2, 3], keepdims=1))
    return nodes.add("Sqrt", nodes.mean(nodes.add("Mul", apart, apart), [2, 3]))


def _edges(nodes: Nodes, brightness: str) -> str:
    found = []
    for axis in (3, 2):
        ends = [nodes.constant(np.array([value], np.int64)) for value in (0, 1, -1, 2**31, axis)]
        start, second, last, end, along = ends
        later = nodes.add("Slice", brightness, second, end, along)
        earlier = nodes.add("Slice", brightness, start, last, along)
        step = nodes.add("Abs", nodes.add("Sub", later, earlier))
        found.append(nodes.mean(step, [2, 3]))
    return nodes.add("Concat", *found, axis=1)
