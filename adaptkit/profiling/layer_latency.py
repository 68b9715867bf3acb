"""What one layer costs on ONNX Runtime: a table filled by measuring, kept in a file."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from adaptkit.files import write_atomically
from adaptkit.modes import evaluating

_OPSET = 20
_WARMUP_SECONDS = 0.02
_SECONDS = 0.2
_FEWEST, _MOST = 9, 500
_LEAST = 0.05
"""Share of a call that its layer takes at least: a kernel takes something, and both times are measured."""


@dataclass(frozen=True)
class LayerShape:
    """All that the time of a convolution or linear layer depends on.

    Args:
        kind: "conv" or "linear".
        in_channels: Channels (or features) in.
        out_channels: Channels (or features) out.
        kernel: (height, width) of the kernel; (1, 1) for a linear layer.
        stride: As in torch.
        padding: Pixels of zeros at top and left, and at bottom and right.
        dilation: As in torch.
        groups: As in torch.
        input_size: (H, W) of the input; for a linear layer the dimensions between batch and features, () for none.
    """

    kind: Literal["conv", "linear"]
    in_channels: int
    out_channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    input_size: tuple[int, ...] = ()

    @property
    def weights(self) -> int:
        """The number of weights, without a bias."""
        return self.out_channels * (self.in_channels // self.groups) * math.prod(self.kernel)

    @property
    def output_size(self) -> tuple[int, ...]:
        """The dimensions of the output that are neither batch nor channels.

        Example:
            >>> LayerShape("conv", 3, 8, kernel=(3, 3), stride=(2, 1), padding=(1, 1), input_size=(8, 8)).output_size
            (4, 8)
        """
        if self.kind == "linear":
            return self.input_size
        dimensions = zip(self.input_size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((size + 2 * pad - hole * (k - 1) - 1) // step + 1 for size, k, step, pad, hole in dimensions)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one sample."""
        return self.weights * math.prod(self.output_size)


def layer_shapes(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> dict[str, LayerShape]:
    """Map the path of every Conv2d and Linear that one forward pass calls to its shape.

    A layer called several times is listed with its first input.

    Args:
        model: Run once in evaluation mode; left as it was.
        example_inputs: Inputs of one call, batch first.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Flatten(), nn.Linear(72, 4))
        >>> shapes = layer_shapes(net, (torch.zeros(1, 3, 8, 8),))
        >>> shapes["0"].stride, shapes["0"].input_size, shapes["2"].in_channels
        ((2, 2), (8, 8), 72)
    """
    shapes: dict[str, LayerShape] = {}

    def remember(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            shapes.setdefault(name, _shape(module, next(iter((*inputs, *named.values())))))

        return hook

    handles = [
        module.register_forward_pre_hook(remember(name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    try:
        with evaluating(model), torch.no_grad():
            model(*example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _shape(module: nn.Module, x: Tensor) -> LayerShape:
    if isinstance(module, nn.Linear):
        middle = tuple(x.shape[1:-1])
        return LayerShape("linear", module.in_features, module.out_features, input_size=middle)
    assert isinstance(module, nn.Conv2d)
    return LayerShape(
        "conv",
        module.in_channels,
        module.out_channels,
        _pair(module.kernel_size),
        _pair(module.stride),
        _padding(module),
        _pair(module.dilation),
        module.groups,
        (int(x.shape[-2]), int(x.shape[-1])),
    )


def _padding(module: nn.Conv2d) -> tuple[int, int]:
    if module.padding == "valid":
        return (0, 0)
    if module.padding == "same":
        kernel, dilation = _pair(module.kernel_size), _pair(module.dilation)
        return (dilation[0] * (kernel[0] - 1) // 2, dilation[1] * (kernel[1] - 1) // 2)
    assert not isinstance(module.padding, str)
    return _pair(module.padding)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return (int(values[0]), int(values[1]))


class TimeStore:
    """Measured seconds by name, in memory and, where a path is given, in a JSON file that is always whole.

    A value is measured once and then kept, so that a run that goes on after a kill decides on the same numbers.

    Args:
        path: The file; read if it is there. None keeps the numbers in memory only.

    Example:
        >>> store = TimeStore()
        >>> store.get("block", lambda: 0.5), store.get("block", lambda: 0.7)
        (0.5, 0.5)
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.values: dict[str, float] = {}
        if path is not None and path.exists():
            self.values = {key: float(value) for key, value in json.loads(path.read_text()).items()}

    def get(self, key: str, measure: Callable[[], float]) -> float:
        """Return the value of `key`, measured now if it never was."""
        if key not in self.values:
            self.values[key] = measure()
            if self.path is not None:
                write_atomically(self.path, json.dumps(self.values, indent=1, sort_keys=True) + "\n")
        return self.values[key]


class LatencyTable:
    """Seconds of single layers on ONNX Runtime, each measured when first asked for.

    A convolution is timed with the ReLU that ONNX Runtime fuses into it, fp32, median of repeated runs. What a call
    takes that does nothing is subtracted: a network pays it once, and small layers take less than that.

    Args:
        path: JSON file that keeps the numbers; None keeps them in memory.
        threads: Threads of ONNX Runtime.
        batch_size: Samples in the timed input.

    Example:
        >>> table = LatencyTable()
        >>> layer = LayerShape("conv", 3, 8, kernel=(3, 3), input_size=(8, 8))
        >>> table.seconds(layer) > 0
        True
        >>> table.seconds(layer) == table.seconds(layer)
        True
    """

    def __init__(self, path: Path | None = None, threads: int = 1, batch_size: int = 1) -> None:
        self.threads = threads
        self.batch_size = batch_size
        self._store = TimeStore(path)

    def seconds(self, shape: LayerShape) -> float:
        """Return the time of the layer inside a network, in seconds for the whole batch."""
        key = json.dumps({**asdict(shape), "threads": self.threads, "batch": self.batch_size}, sort_keys=True)
        return self._store.get(key, lambda: without_call(self._measured(shape), self._store, self.threads))

    def _measured(self, shape: LayerShape) -> float:
        return chain_seconds([[shape]], self.threads, self.batch_size)[0]


def without_call(seconds: float, store: TimeStore, threads: int = 1) -> float:
    """Subtract what a call takes that does nothing, measured once, from the measured time of layers.

    Example:
        >>> store = TimeStore()
        >>> store.values["a call, threads 1"] = 4e-6
        >>> round(without_call(10e-6, store), 9)
        6e-06
    """
    call = store.get(f"a call, threads {threads}", lambda: median_seconds([_nothing()], threads)[0])
    return max(seconds - call, _LEAST * seconds)


def chain_seconds(chains: Sequence[Sequence[LayerShape]], threads: int = 1, batch_size: int = 1) -> list[float]:
    """Time chains of layers side by side on ONNX Runtime, each with a bias and a ReLU after its last layer.

    Args:
        chains: Each a layer, or several of which one takes what the one before it gives.
        threads: Threads within an operator.
        batch_size: Samples in the timed input.

    Returns:
        The median time of a call of each, in seconds for the whole batch.

    Example:
        >>> whole = LayerShape("linear", 256, 256)
        >>> parts = [LayerShape("linear", 256, 4), LayerShape("linear", 4, 256)]
        >>> len(chain_seconds([[whole], parts]))
        2
    """
    made = [_chain(chain, batch_size) for chain in chains]
    return median_seconds([TimedModel(model, {"input": feed}) for model, feed in made], threads)


@dataclass(frozen=True)
class TimedModel:
    """An ONNX model and the inputs to time it with."""

    model: onnx.ModelProto
    feed: dict[str, np.ndarray[Any, Any]]


def median_seconds(models: Sequence[TimedModel], threads: int = 1) -> list[float]:
    """Time models side by side on ONNX Runtime: A B A B …, so that a machine that slows down slows them all.

    Args:
        models: What to time.
        threads: Threads within an operator.

    Returns:
        The median time of a call of each, in seconds.
    """
    # With one thread the runtime works on this one: its own CPU time leaves out what other processes took meanwhile,
    # which on a busy machine falls on the longer models alone.
    clock = thread_time if threads == 1 else perf_counter
    runs = [(_session(timed.model, threads), timed.feed) for timed in models]
    start = perf_counter()
    while perf_counter() - start < _WARMUP_SECONDS * len(runs):
        for session, feed in runs:
            session.run(None, feed)
    times: list[list[float]] = [[] for _ in runs]
    start = perf_counter()
    while len(times[0]) < _FEWEST or (perf_counter() - start < _SECONDS * len(runs) and len(times[0]) < _MOST):
        for (session, feed), kept in zip(runs, times, strict=True):
            before = clock()
            session.run(None, feed)
            kept.append(clock() - before)
    return [median(values) for values in times]


def fingerprint(text: str) -> str:
    """Shorten a long description to a key of 16 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _nothing() -> TimedModel:
    """Make a model that hands one number on."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Identity", ["input"], ["output"])], "nothing", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
    return TimedModel(model, {"input": np.zeros(1, np.float32)})


def _session(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _chain(shapes: Sequence[LayerShape], batch: int) -> tuple[onnx.ModelProto, np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    for number, shape in enumerate(shapes):
        made, weight_shape = _conv_node(shape, number) if shape.kind == "conv" else _linear_nodes(shape, number)
        nodes += made
        weight = generator.standard_normal(weight_shape).astype(np.float32)
        bias = generator.standard_normal(shape.out_channels).astype(np.float32)
        constants += [
            numpy_helper.from_array(weight, f"weight{number}"),
            numpy_helper.from_array(bias, f"bias{number}"),
        ]
    if shapes[-1].kind == "conv":
        nodes.append(helper.make_node("Relu", [nodes[-1].output[0]], ["activated"]))
    nodes[-1].output[0] = "output"
    nodes[0].input[0] = "input"
    first = shapes[0]
    channels_first, channels_last = (first.in_channels, *first.input_size), (*first.input_size, first.in_channels)
    feed_shape = (batch, *(channels_first if first.kind == "conv" else channels_last))
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, feed_shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [None] * len(feed_shape))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
    return model, generator.standard_normal(feed_shape).astype(np.float32)


def _conv_node(shape: LayerShape, number: int) -> tuple[list[onnx.NodeProto], tuple[int, ...]]:
    conv = helper.make_node(
        "Conv",
        [f"value{number}", f"weight{number}", f"bias{number}"],
        [f"value{number + 1}"],
        kernel_shape=shape.kernel,
        strides=shape.stride,
        pads=(*shape.padding, *shape.padding),
        dilations=shape.dilation,
        group=shape.groups,
    )
    return [conv], (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)


def _linear_nodes(shape: LayerShape, number: int) -> tuple[list[onnx.NodeProto], tuple[int, ...]]:
    product = helper.make_node("MatMul", [f"value{number}", f"weight{number}"], [f"product{number}"])
    add = helper.make_node("Add", [f"product{number}", f"bias{number}"], [f"value{number + 1}"])
    return [product, add], (shape.in_channels, shape.out_channels)
