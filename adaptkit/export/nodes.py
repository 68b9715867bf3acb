"""Makes ONNX graphs node by node."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array: TypeAlias = np.ndarray[Any, Any]


class Nodes:
    """A graph that grows; everything in it gets a name of its own.

    Args:
        prefix: Of the names.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, value: Array) -> str:
        """Add a constant, and give its name."""
        name = f"{self._prefix}/constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node, and give the name of its last output; the others are not used."""
        name = f"{self._prefix}/{kind}_{len(self._nodes)}"
        names = [f"{name}/{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, name, **attributes))
        return names[-1]

    def mean(self, value: str, axes: list[int], keepdims: int = 0) -> str:
        """Add a mean over some axes."""
        return self.add("ReduceMean", value, self.constant(np.array(axes, np.int64)), keepdims=keepdims)

    def model(self, shape: tuple[int, ...], value: str, name: str, size: int, opset: int) -> onnx.ModelProto:
        """Make a model: N × shape, called `input`, to N × size, called `name`.

        Args:
            shape: Of a sample.
            value: Name of the result so far.
            name: Of the output.
            size: Of a sample of the output.
            opset: ONNX operator set.
        """
        last = helper.make_node("Identity", [value], [name], f"{self._prefix}/output")
        takes = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])
        gives = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        graph = helper.make_graph([*self._nodes, last], self._prefix, [takes], [gives], self._constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
