"""Recording the ATen calls of a model that runs on shapes only."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Torch takes these apart in Python each time, to find out that the shape stays: that took most of a recording.
_KEEP_SHAPE = {
    aten.batch_norm.default, aten.layer_norm.default, aten.group_norm.default, aten.instance_norm.default,
    aten.hardtanh.default, aten.relu6.default, aten.silu.default, aten.gelu.default, aten.hardswish.default,
    aten.hardsigmoid.default, aten.elu.default, aten.leaky_relu.default, aten.dropout.default,
}  # fmt: skip
_KEEP_TENSOR = {
    aten.hardtanh_.default, aten.relu6_.default, aten.silu_.default, aten.hardswish_.default,
    aten.hardsigmoid_.default, aten.elu_.default, aten.leaky_relu_.default, aten.dropout_.default,
}  # fmt: skip
_CANNOT_HOLD_TENSORS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


def record(
    run: Callable[..., Any], inputs: tuple[Any, ...], tensors: Sequence[tuple[str, Tensor]], running: Sequence[str]
) -> tuple[fx.Graph, dict[str, str]]:
    """Run something on the meta device; write down its calls as they are before torch takes them apart: conv2d, linear.

    torch.export records the same calls ten times slower, since it also proves that the program is sound to run.

    Args:
        run: Computes with tensors on the meta device.
        inputs: Its arguments; tensors in them are taken to the meta device.
        tensors: Names of the parameters and buffers that it reads.
        running: Where the module whose forward is running stands last.

    Returns:
        The graph, and the name of the parameter or buffer of every node that is one.

    Raises:
        TypeError: The result holds something other than tensors and numbers in tuples, lists and dicts.
    """
    recorder = _Recorder(running)
    names = {recorder.add_input(tensor): name for name, tensor in tensors}
    hollow: dict[int, Tensor] = {}
    given = pytree.tree_map_only(Tensor, lambda x: hollow.setdefault(id(x), x.detach().to("meta")), inputs)
    for tensor in hollow.values():
        recorder.add_input(tensor)
    with torch.no_grad(), enable_python_dispatcher(), recorder:
        result = run(*given)
    recorder.finish(result)
    return recorder.graph, names


class _Recorder(SchemaCheckMode):  # type: ignore[no-untyped-call]
    """Sees every call at torch's first dispatch key, which torch keeps for modes of a few classes: hence the base."""

    def __init__(self, running: Sequence[str]) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self._running = running
        self._nodes: dict[int, fx.Node] = {}
        self._fresh: dict[int, fx.Node] = {}
        self._alive: list[Tensor] = []  # so that no id is given twice

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        before = _swap((args, kwargs), self._node_of)
        given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(tensor.is_meta for tensor in given) and not all(tensor.is_meta for tensor in given):
            # a constant that the model made on the processor
            args, kwargs = _swap((args, kwargs), lambda tensor: tensor.to("meta"))
        result = _known(func, args)
        if result is None:
            result = func(*args, **kwargs)
        self._add_call(func, before, result)
        return result

    def add_input(self, tensor: Tensor) -> str:
        """Make a node for a tensor that comes from outside; return the name of the node."""
        node = self.graph.create_node("placeholder", f"input_{len(self._alive)}")
        self._remember(node, tensor)
        return node.name

    def finish(self, result: Any) -> None:
        """Note which tensors come out."""
        leaves = pytree.tree_leaves(result)
        for leaf in leaves:
            if not isinstance(leaf, (Tensor, *_CANNOT_HOLD_TENSORS)):
                raise TypeError(
                    f"the model returns a {type(leaf).__name__}; return tensors, alone or in tuples, lists and dicts"
                )
        self.graph.output(tuple(self._node_of(leaf) for leaf in leaves if isinstance(leaf, Tensor)))

    def _add_call(self, func: Any, before: tuple[Any, Any], result: Any) -> None:
        if func is torch.ops.aten.contiguous.default:
            # torch only calls it where it has something to do, so that it would come and go with the sizes
            self._nodes[id(result)] = before[0][0]
            self._alive.append(result)
            return
        many = isinstance(result, (list, tuple))
        parts = list(result) if many else [result]
        if not any(isinstance(part, Tensor) for part in parts):
            return
        node = self.graph.create_node("call_function", func, *before)
        node.meta["owner"] = self._running[-1] if self._running else ""
        if not many:
            self._remember(node, result)
            if not node.all_input_nodes:
                self._fresh[result.untyped_storage()._cdata] = node
            return
        node.meta["val"] = [_seen(part) for part in parts]
        for index, part in enumerate(parts):
            if isinstance(part, Tensor):
                picked = self.graph.create_node("call_function", operator.getitem, (node, index))
                picked.meta["owner"] = node.meta["owner"]
                self._remember(picked, part)

    def _node_of(self, tensor: Tensor) -> fx.Node:
        if id(tensor) not in self._nodes:
            # torch.zeros and its like hand out another tensor with the storage of the one seen here
            made = self._fresh.get(tensor.untyped_storage()._cdata)
            if made is None:
                self.add_input(tensor)
            else:
                self._remember(made, tensor)
        return self._nodes[id(tensor)]

    def _remember(self, node: fx.Node, tensor: Tensor) -> None:
        node.meta["val"] = _seen(tensor)
        self._nodes[id(tensor)] = node
        self._alive.append(tensor)


def _known(func: Any, args: tuple[Any, ...]) -> Tensor | None:
    """Return the result of a call whose first argument says all about it; None where torch is to be asked."""
    if func in _KEEP_TENSOR:
        return args[0]  # type: ignore[no-any-return]
    if func not in _KEEP_SHAPE:
        return None
    if func is aten.batch_norm.default and any(
        isinstance(own, Tensor) and own.shape[0] != args[0].shape[1] for own in args[1:5]
    ):
        return None  # torch says what is wrong
    return torch.empty_like(args[0])


class _Shape:
    """What is kept of a tensor: in-place calls change the shape of the tensor itself."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape


def _seen(item: Any) -> _Shape | None:
    return _Shape(tuple(item.shape)) if isinstance(item, Tensor) else None


def _swap(item: Any, change: Callable[[Tensor], Any]) -> Any:
    """Replace the tensors in the arguments of a call."""
    if isinstance(item, Tensor):
        return change(item)
    if isinstance(item, (list, tuple)) and not isinstance(item, torch.Size):
        return type(item)(_swap(part, change) for part in item)
    if isinstance(item, dict):
        return {key: _swap(part, change) for key, part in item.items()}
    return item
