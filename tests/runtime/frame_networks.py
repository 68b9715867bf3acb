"""Small networks with all that looks at its neighbours, as ONNX graphs, and videos in which rectangles change."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 48


class Graph:
    """Builds a network layer by layer, with random weights."""

    def __init__(self, channels=3, size=SIZE):
        self.rng = np.random.default_rng(0)
        self.nodes, self.constants, self.size = [], [], size
        self.channels = {"input": channels}

    def node(self, kind, inputs, channels, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        self.channels[name] = channels
        return name

    def constant(self, values):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def conv(self, x, channels, kernel=(3, 3), pads=None, groups=1, dilations=(1, 1), stride=1):
        into = self.channels[x] // groups
        weight = self.rng.normal(0, (into * np.prod(kernel)) ** -0.5, (channels, into, *kernel)).astype(np.float32)
        bias = self.rng.normal(0, 0.3, channels).astype(np.float32)
        pads = pads or [(k - 1) * d // 2 for k, d in zip(kernel, dilations, strict=True)] * 2
        return self.node(
            "Conv",
            [x, self.constant(weight), self.constant(bias)],
            channels,
            pads=pads,
            group=groups,
            dilations=list(dilations),
            strides=[stride, stride],
        )

    def relu(self, x):
        return self.node("Relu", [x], self.channels[x])

    def add(self, a, b):
        return self.node("Add", [a, b], self.channels[a])

    def finish(self, x, classes=5):
        """Pool over all places, and classify."""
        mean = self.node("GlobalAveragePool", [x], self.channels[x])
        flat = self.node("Flatten", [mean], self.channels[x])
        weight = self.constant(self.rng.normal(0, 1, (self.channels[x], classes)).astype(np.float32))
        self.nodes.append(helper.make_node("MatMul", [flat, weight], ["logits"]))
        shape = ["batch", self.channels["input"], self.size, self.size]
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
            self.constants,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return onnx.shape_inference.infer_shapes(proto)


def residual():
    """A stem with a pooling, blocks with shortcuts, one of them strided, as ResNets have."""
    g = Graph()
    x = g.relu(g.conv("input", 8, (5, 5), stride=2))
    x = g.node("MaxPool", [x], 8, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    x = g.relu(g.add(g.conv(g.relu(g.conv(x, 8)), 8), x))
    short = g.conv(x, 12, (1, 1), pads=[0, 0, 0, 0], stride=2)
    x = g.relu(g.add(g.conv(g.relu(g.conv(x, 12, stride=2)), 12), short))
    return g.finish(g.relu(g.conv(x, 8)))


def mobile():
    """Depthwise, dilated and lopsided convolutions, an average pooling, two branches put together."""
    g = Graph()
    x = g.relu(g.conv("input", 8, (1, 5)))
    x = g.relu(g.conv(x, 8, groups=8, dilations=(2, 2)))
    x = g.node("AveragePool", [x], 8, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=0)
    x = g.node("Concat", [g.conv(x, 4, (3, 1)), g.conv(x, 4, (1, 1), pads=[0, 0, 0, 0])], 8, axis=1)
    x = g.relu(g.conv(x, 8, (2, 2), pads=[0, 0, 0, 0], stride=2))
    return g.finish(x)


def sliced():
    """A shortcut that takes every second place and pads the channels, as the CIFAR ResNets have."""
    g = Graph()
    x = g.relu(g.conv("input", 6))
    zero, far, two = (g.constant(np.array([n])) for n in (0, 2**63 - 1, 2))
    rows = g.node("Slice", [x, zero, far, g.constant(np.array([2])), two], 6)
    both = g.node("Slice", [rows, zero, far, g.constant(np.array([3])), two], 6)
    short = g.node("Pad", [both, g.constant(np.array([0, 1, 0, 0, 0, 1, 0, 0]))], 8)
    x = g.relu(g.add(g.conv(g.relu(g.conv(x, 8, stride=2)), 8), short))
    return g.finish(x)


def quantized():
    """Integers between the layers: the kept maps hold them."""
    g = Graph()
    scale, zero = g.constant(np.float32(0.02)), g.constant(np.uint8(0))
    x = "input"
    for channels, stride in ((8, 2), (8, 1), (8, 2)):
        x = g.relu(g.conv(x, channels, stride=stride))
        x = g.node("DequantizeLinear", [g.node("QuantizeLinear", [x, scale, zero], 8), scale, zero], 8)
    return g.finish(x)


NETWORKS = {"residual": residual, "mobile": mobile, "sliced": sliced, "quantized": quantized}


def video(rectangles, seed=0, size=SIZE):
    """Make frames, each with another rectangle (top, left, height, width) of noise in it, over those before."""
    rng = np.random.default_rng(seed)
    frames = [rng.normal(size=(3, size, size)).astype(np.float32)]
    for top, left, height, width in rectangles:
        frame = frames[-1].copy()
        part = frame[:, top : top + height, left : left + width]
        part[:] = rng.normal(size=part.shape)
        frames.append(frame)
    return np.stack(frames)
