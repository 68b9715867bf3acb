"""How large the values inside a graph are, from a real run: nothing has to be inferred, and nothing is kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import onnx
from onnx import helper

from adaptkit.profiling.inputs import TYPES, zero_feeds
from adaptkit.runtime.session import RUN_ERRORS, cannot_run, open_session

Shape: TypeAlias = tuple[int, ...]

_OPSET = 13
_NO_TENSORS = {"SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SplitToSequence", "ZipMap"}


@dataclass(frozen=True)
class Value:
    """One tensor of a run.

    Args:
        shape: Its sizes.
        itemsize: Bytes of one entry.
    """

    shape: Shape
    itemsize: int

    @property
    def bytes(self) -> int:
        """All of them; none where a dimension is zero."""
        return math.prod(self.shape) * self.itemsize


def run_values(
    proto: onnx.ModelProto, names: Iterable[str] | None = None, batch_size: int = 1, weights_in: Path | None = None
) -> dict[str, Value]:
    """Run a graph on zeros and give the size of its inputs and of values inside it.

    A `Shape` node is put behind every value, so that the run itself holds no more than it needs.

    Args:
        proto: A model whose inputs are free in the first dimension only.
        names: Of values; all that nodes put out, where None. Constants are left out.
        batch_size: Samples, where the model leaves that free.
        weights_in: The folder of weights that are not in the model itself.

    Raises:
        ModelError: Another input dimension is free, or ONNX Runtime cannot run the model.
    """
    made = [
        name
        for node in proto.graph.node
        if node.op_type not in _NO_TENSORS and not node.op_type.startswith("Optional")
        for name in node.output
        if name
    ]
    chosen = set(made if names is None else names)
    wanted = [name for name in dict.fromkeys(made) if name in chosen]
    session = open_session(_with_shapes(proto, wanted).SerializeToString(), threads=1, weights_in=weights_in)
    feeds = zero_feeds(session, batch_size, proto.graph.name or "the model")
    found = {name: Value(value.shape, value.itemsize) for name, value in feeds.items()}
    kinds = {output.name: output.type for output in session.get_outputs()}
    try:
        shapes = session.run([_shape_of(name) for name in wanted], feeds) if wanted else []
    except RUN_ERRORS as error:
        raise cannot_run(error) from error
    for name, shape in zip(wanted, shapes, strict=True):
        kind = TYPES.get(kinds[name])
        found[name] = Value(tuple(shape.tolist()), 2 if kind is None else kind.itemsize)  # bfloat16 is not numpy's
    return found


def _with_shapes(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    if not any(entry.domain in ("", "ai.onnx") for entry in changed.opset_import):
        changed.opset_import.append(helper.make_opsetid("", _OPSET))
    if names:
        del changed.graph.output[:]
    for name in names:
        changed.graph.node.append(helper.make_node("Shape", [name], [_shape_of(name)]))
        changed.graph.output.extend(onnx.ValueInfoProto(name=each) for each in (name, _shape_of(name)))
    return changed


def _shape_of(name: str) -> str:
    return f"adaptkit.shape of {name}"
