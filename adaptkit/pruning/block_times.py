"""What each residual block costs: multiply-accumulates, and measured time on ONNX Runtime."""

from collections.abc import Sequence
from typing import Any

import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from adaptkit.export.onnx import to_onnx
from adaptkit.modes import evaluating
from adaptkit.profiling.layer_latency import TimedModel, TimeStore, fingerprint, median_seconds
from adaptkit.pruning.blocks import signature

_COPIES = 5
_SMALLEST_SHARE = 1e-3


def block_macs(model: nn.Module, names: Sequence[str], example_inputs: tuple[Tensor, ...]) -> dict[str, float]:
    """Count the multiply-accumulates of each block, and under "" of the whole model, for one sample.

    Args:
        model: Run once in evaluation mode; left as it was.
        names: The blocks.
        example_inputs: Inputs of one call, batch first.
    """
    counted: dict[str, float] = {}
    counter = FlopCounterMode(display=False)
    before: dict[str, int] = {}
    handles = []
    for name in names:
        block = model.get_submodule(name)
        handles.append(
            block.register_forward_pre_hook(lambda *_, n=name: before.update({n: counter.get_total_flops()}))
        )
        handles.append(
            block.register_forward_hook(lambda *_, n=name: counted.update({n: counter.get_total_flops() - before[n]}))
        )
    try:
        with evaluating(model), torch.no_grad(), counter:
            model(*example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    counted[""] = counter.get_total_flops()
    return {name: flops / 2 / len(example_inputs[0]) for name, flops in counted.items()}


class BlockTimes:
    """Time of blocks and of pruned models on ONNX Runtime (fp32), as shares of the original model's.

    Everything is measured side by side with the original model, so that a machine that slows down slows both, once,
    and then kept. The time of a block is a quarter of what a chain of five copies takes longer than one copy: what the
    runtime spends on entering and leaving a graph cancels out, as it does between the blocks of the model.

    Args:
        original: The model before pruning; exported here, so that it may be edited afterwards.
        example_inputs: Inputs of one call, batch first.
        store: Where the numbers are kept.
        threads: Threads of ONNX Runtime.
        batch_size: Samples in the timed input.
    """

    def __init__(
        self,
        original: nn.Module,
        example_inputs: tuple[Tensor, ...],
        store: TimeStore,
        threads: int = 1,
        batch_size: int = 1,
    ) -> None:
        self._original = to_onnx(original, example_inputs)
        self._described = signature(original, example_inputs[0][:1])
        self._example_inputs = example_inputs
        self._store = store
        self._threads = threads
        self._batch_size = batch_size

    def block(self, block: nn.Module, x: Tensor) -> float:
        """Return the share of the original's time that a block of this structure takes for an input like `x`."""

        def measure() -> float:
            chain = nn.Sequential(*[block] * _COPIES)
            original, one, many = self._medians([to_onnx(block, (x,)), to_onnx(chain, (x,))], [(x,), (x,)])
            return max((many - one) / (_COPIES - 1), _SMALLEST_SHARE * one) / original

        return self._store.get(self._key("block", signature(block, x[:1])), measure)

    def kept(self, model: nn.Module) -> float:
        """Return the share of the original's time that a pruned model takes."""

        def measure() -> float:
            original, now = self._medians([to_onnx(model, self._example_inputs)], [self._example_inputs])
            return now / original

        return self._store.get(self._key("kept", signature(model, self._example_inputs[0][:1])), measure)

    def _medians(self, protos: list[ModelProto], inputs: list[tuple[Tensor, ...]]) -> list[float]:
        timed = [
            TimedModel(proto, self._feed(proto, xs))
            for proto, xs in zip([self._original, *protos], [self._example_inputs, *inputs], strict=True)
        ]
        return median_seconds(timed, self._threads)

    def _feed(self, proto: ModelProto, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
        names = [value.name for value in proto.graph.input]
        batches = [torch.cat([x[:1]] * self._batch_size).numpy() for x in inputs]
        return dict(zip(names, batches, strict=True))

    def _key(self, kind: str, description: str) -> str:
        return f"{kind} {fingerprint(self._described + description)} threads {self._threads} batch {self._batch_size}"
