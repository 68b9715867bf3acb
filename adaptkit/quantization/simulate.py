"""A quantized model in PyTorch: float weights, rounded on the way through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from adaptkit.errors import ModelError
from adaptkit.quantization.capture import Captured, capture, fixed_values
from adaptkit.quantization.fold import fold_graph
from adaptkit.quantization.placement import moved_from
from adaptkit.quantization.plan import Grid, QuantizationPlan

if TYPE_CHECKING:
    import onnx

DOMAIN = "adaptkit"
MARKER = "Quantize"


class FakeQuantize(nn.Module):
    """Round to the values of a grid: s · (clamp(round(x / s) + z, lowest, highest) − z).

    Backward the rounding counts as the identity, and the clamp as itself (straight-through; Bengio et al. 2013).

    Args:
        grid: The grid.

    Example:
        >>> FakeQuantize(Grid((0.5,), (0,), 8, signed=False))(torch.tensor([-1.0, 0.3, 500.0]))
        tensor([  0.0000,   0.5000, 127.5000])
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("scale", torch.tensor(grid.scale))
        self.register_buffer("zero_point", torch.tensor(grid.zero_point, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Round a tensor; its shape stays."""
        grid = self.grid
        if grid.bits > 8:
            scale = self.scale.double()
            rounded = (torch.round(x.double() / scale) * scale).to(x.dtype)
            return x + (rounded - x).detach()
        if grid.axis is None:
            return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, grid.lowest, grid.highest)
        return torch.fake_quantize_per_channel_affine(
            x, self.scale, self.zero_point, grid.axis, grid.lowest, grid.highest
        )


class Marker(nn.Module):
    """Stands, in an ONNX export, where a tensor is to be quantized; `insert_qdq` takes its place."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def forward(self, x: Tensor) -> Tensor:
        """Become one ONNX node that names the plan's entry."""
        marked: Tensor = torch.onnx.ops.symbolic(
            f"{DOMAIN}::{MARKER}", (x,), attrs={"key": self.key}, dtype=x.dtype, shape=x.shape, version=1
        )
        return marked


class Simulator:
    """The captured graph with a module at every quantized tensor; not a module itself, so it adds no state."""

    def __init__(self, captured: Captured, plan: QuantizationPlan) -> None:
        self.captured = captured
        moved = {node.name: source.name for node in captured.graph.nodes if (source := moved_from(node)) is not None}
        root = nn.Module()
        self.keys = insert_modules(captured.graph, plan)
        for name, key in self.keys.items():
            grid = plan.tensors[key]
            # What has only moved is on its grid already.
            on_grid = plan.tensors.get(moved.get(key, "")) == grid
            root.add_module(name, nn.Identity() if on_grid else FakeQuantize(grid))
        self.module = fx.GraphModule(root, captured.graph)

    def __deepcopy__(self, memo: dict[int, object]) -> Simulator:
        """Share: the parameters come in with every call, nothing here changes."""
        return self

    def run(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
        """Call the graph with a model's tensors and inputs."""
        values = self.captured.arguments(model, inputs)
        ordered = [values[node.name] for node in self.module.graph.nodes if node.op == "placeholder"]
        return self.captured.outputs(self.module(*ordered))


class QuantizedModel(nn.Module):
    """A float model and the plan of its quantization; computes what the integers will compute.

    The weights stay float and trainable, batch normalization included (with fixed statistics); rounding passes
    gradients straight through. The exported file is made from the same graph and the same plan.

    Args:
        model: The float model; kept, not copied.
        plan: Made for this model by a quantization technique.
        captured: The model's graph, normalizations folded, where the caller has it; it is changed. Captured where None.

    Raises:
        ModelError: The model cannot be captured, or the plan was made for another one.
    """

    def __init__(self, model: nn.Module, plan: QuantizationPlan, captured: Captured | None = None) -> None:
        super().__init__()
        self.model = model
        self.plan = plan
        self.simulator = Simulator(captured or captured_and_folded(model, plan.inputs), plan)
        self.train(model.training)

    def forward(self, *inputs: Tensor) -> Any:
        """Simulate the integer model; same shapes as the float model."""
        return self.simulator.run(self.model, inputs)

    def export_model(self) -> nn.Module:
        """Return the model to hand to the ONNX exporter: folded, with a marker at every quantized tensor."""
        return frozen(self.simulator, self.model)

    def finish_onnx(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        """Turn the markers of an exported graph into QuantizeLinear and DequantizeLinear."""
        from adaptkit.quantization.qdq import insert_qdq

        return insert_qdq(proto, self.plan)


def captured_and_folded(model: nn.Module, shapes: tuple[tuple[int, ...], ...]) -> Captured:
    """Capture a model for inputs of these shapes, with batch normalization folded."""
    captured = capture(model, tuple(torch.zeros(shape) for shape in shapes))
    fold_graph(captured)
    return captured


def insert_modules(graph: fx.Graph, plan: QuantizationPlan) -> dict[str, str]:
    """Put a call of a submodule behind every tensor that the plan names.

    Returns:
        Name of the submodule to the plan's key.

    Raises:
        ModelError: The plan names an operation that the graph does not have.
    """
    by_name = {node.name: node for node in graph.nodes}
    unknown = sorted(key for key in plan.tensors if key.rpartition(".")[0] not in by_name and key not in by_name)
    if unknown:
        raise ModelError(f"the quantization plan was made for another model: it names {unknown[0]}")
    keys: dict[str, str] = {}
    for key in plan.tensors:
        name = f"quantize_{key.replace('.', '_')}"
        keys[name] = key
        owner, _, part = key.rpartition(".")
        if owner:
            _insert_before(graph, by_name[owner], 1 if part == "weight" else 2, name)
        else:
            _insert_after(graph, by_name[key], name)
    return keys


def _insert_before(graph: fx.Graph, layer: fx.Node, position: int, name: str) -> None:
    with graph.inserting_before(layer):
        call = graph.create_node("call_module", name, (layer.args[position],))
    layer.update_arg(position, call)


def _insert_after(graph: fx.Graph, node: fx.Node, name: str) -> None:
    first_call = next(n for n in graph.nodes if n.op != "placeholder")
    place = graph.inserting_before(first_call) if node.op == "placeholder" else graph.inserting_after(node)
    with place:
        call = graph.create_node("call_module", name, (node,))
    node.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call and "sym_size" not in user.name)


def frozen(simulator: Simulator, model: nn.Module) -> fx.GraphModule:
    """Compute all that depends on parameters alone, and put markers in place of the rounding."""
    values = fixed_values(simulator.captured, model)
    graph, root = fx.Graph(), nn.Module()
    copies: dict[fx.Node, fx.Node] = {}

    def copied(source: fx.Node) -> fx.Node:
        if source not in copies:
            root.register_buffer(source.name, values[source.name].detach().clone())
            copies[source] = graph.get_attr(source.name)
        return copies[source]

    for node in simulator.captured.graph.nodes:
        if node.op == "output" and len(node.args[0]) == 1:
            graph.output(copied(node.args[0][0]))
        elif node.name not in values:
            copies[node] = graph.node_copy(node, copied)
    for name, key in simulator.keys.items():
        root.add_module(name, Marker(key))
    return fx.GraphModule(root, graph)
