"""A quantized model in PyTorch: float weights, rounded on the way through."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from adaptkit.errors import ModelError
from adaptkit.quantization.accumulators import PartialSums
from adaptkit.quantization.bit_true import bit_true
from adaptkit.quantization.capture import Captured, capture, fixed_values
from adaptkit.quantization.fold import fold_graph
from adaptkit.quantization.placement import moved_from
from adaptkit.quantization.plan import ExampleInput, Grid, QuantizationPlan

if TYPE_CHECKING:
    import onnx

    from adaptkit.export.held import Held

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
        if grid.odd or grid.block is not None:
            scale = along(self.scale, grid, x)
            scaled = x.detach() * (1 / scale)
            rounded = 2 * torch.floor(scaled / 2) + 1 if grid.odd else torch.round(scaled)
            return rounded.clamp(grid.lowest, grid.highest) * scale + (x - x.detach())
        if grid.bits > 8:
            scale = self.scale.double()
            rounded = (torch.round(x.double() / scale) * scale).to(x.dtype)
            return x + (rounded - x).detach()
        if grid.axis is None:
            return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, grid.lowest, grid.highest)
        return torch.fake_quantize_per_channel_affine(
            x, self.scale, self.zero_point, grid.axis, grid.lowest, grid.highest
        )


def along(scale: Tensor, grid: Grid, x: Tensor) -> Tensor:
    """Shape the scales of a grid so that they multiply a tensor.

    Example:
        >>> along(torch.ones(3), Grid((1.0,) * 3, (0,) * 3, axis=0), torch.zeros(3, 2, 2)).shape
        torch.Size([3, 1, 1])
        >>> blocks = Grid((1.0,) * 4, (0,) * 4, axis=0, block=2)
        >>> along(torch.arange(4.0), blocks, torch.zeros(2, 3))
        tensor([[0., 0., 1.],
                [2., 2., 3.]])
    """
    if grid.block is not None:
        spread = scale.reshape(len(x), -1).repeat_interleave(grid.block, 1)
        return spread[:, : x[0].numel()].reshape(x.shape)
    return scale.reshape([-1 if grid.axis == dim else 1 for dim in range(x.dim())])


class DynamicQuantize(nn.Module):
    """Round to the 256 values that span what a tensor holds, and zero, as ONNX's DynamicQuantizeLinear does.

    Example:
        >>> DynamicQuantize()(torch.tensor([0.0, 0.3, 25.5]))
        tensor([ 0.0000,  0.3000, 25.5000])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Round a tensor; gradients pass straight through."""
        low, high = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
        scale = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).tiny)
        zero = torch.round(-low / scale)
        rounded = (torch.round(x.detach() / scale) + zero).clamp(0, 255)
        return (rounded - zero) * scale + (x - x.detach())


class HalfPrecision(nn.Module):
    """Round to what 16 bits of floating point hold; beyond their largest value to that.

    Args:
        kind: "float16" or "bfloat16".

    Example:
        >>> HalfPrecision("float16")(torch.tensor([1e-9, 1.0, 1e9])).tolist()
        [0.0, 1.0, 65504.0]
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}[kind]

    def forward(self, x: Tensor) -> Tensor:
        """Round a tensor; gradients pass straight through."""
        largest = torch.finfo(self.dtype).max
        return x.detach().clamp(-largest, largest).to(self.dtype).to(x.dtype) + (x - x.detach())


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
    """The captured graph with a module at every quantized tensor; not a module itself, so it adds no state.

    Args:
        captured: The model's graph, normalizations folded; it is changed.
        plan: The grids.
    """

    def __init__(self, captured: Captured, plan: QuantizationPlan) -> None:
        self.captured = captured
        nodes = captured.graph.nodes
        self.moved = {node.name: source.name for node in nodes if (source := moved_from(node)) is not None}
        self.keys = insert_modules(captured.graph, plan)
        self._fill(plan)

    def replanned(self, plan: QuantizationPlan) -> Simulator:
        """Return one for other grids of the same tensors; the graph is shared."""
        other = copy.copy(self)
        other._fill(plan)
        return other

    def _fill(self, plan: QuantizationPlan) -> None:
        """Put a module behind every tensor of the plan."""
        graph, root = self.captured.graph, nn.Module()
        for name, key in self.keys.items():
            # What has only moved is on its grid already.
            on_grid = key in plan.tensors and plan.tensors.get(self.moved.get(key, "")) == plan.tensors[key]
            root.add_module(name, nn.Identity() if on_grid else _rounding(key, plan))
        self.sums = _accumulate(graph, plan, self.keys, root)
        self.module = fx.GraphModule(root, graph)
        grids = {name: plan.tensors[key] for name, key in self.keys.items() if key in plan.tensors}
        self.exact = bit_true(self.module, grids)

    def __deepcopy__(self, memo: dict[int, object]) -> Simulator:
        """Share: the parameters come in with every call, nothing here changes."""
        return self

    def run(self, model: nn.Module, inputs: tuple[Tensor, ...], exact: bool = False) -> Any:
        """Call the graph with a model's tensors and inputs; `exact` computes as the integer kernels do."""
        values = self.captured.arguments(model, inputs)
        ordered = [values[node.name] for node in self.module.graph.nodes if node.op == "placeholder"]
        return self.captured.outputs((self.exact if exact else self.module)(*ordered))


class QuantizedModel(nn.Module):
    """A float model and the plan of its quantization; computes what the integers will compute.

    In evaluation mode it does so bit by bit (see `bit_true`), in training mode up to the last bits of float32. The
    weights stay float and trainable, batch normalization included (with fixed statistics); rounding passes
    gradients straight through. The exported file is made from the same graph and the same plan.

    Args:
        model: The float model; kept, not copied.
        plan: Made for this model by a quantization technique.
        simulator: Of this model and plan, where the caller has it; the model is captured where None.

    Raises:
        ModelError: The model cannot be captured, or the plan was made for another one.
    """

    def __init__(self, model: nn.Module, plan: QuantizationPlan, simulator: Simulator | None = None) -> None:
        super().__init__()
        self.model = model
        self.plan = plan
        self.simulator = simulator or Simulator(captured_and_folded(model, plan.inputs), plan)
        self.train(model.training)

    def forward(self, *inputs: Tensor) -> Any:
        """Simulate the integer model; same shapes as the float model."""
        return self.simulator.run(self.model, inputs, exact=not self.training)

    def replanned(self, plan: QuantizationPlan) -> QuantizedModel:
        """Return the same model under other grids of the same tensors, without capturing it again."""
        return QuantizedModel(self.model, plan, self.simulator.replanned(plan)).train(self.training)

    def export_model(self) -> nn.Module:
        """Return the model to hand to the ONNX exporter: folded, with a marker at every quantized tensor."""
        return frozen(self.simulator, self.model)

    def finish_onnx(self, proto: onnx.ModelProto, held: Held) -> onnx.ModelProto:
        """Turn the markers of an exported graph into QuantizeLinear and DequantizeLinear."""
        from adaptkit.quantization.qdq import insert_qdq

        return insert_qdq(proto, self.plan, held)


def _accumulate(graph: fx.Graph, plan: QuantizationPlan, keys: dict[str, str], root: nn.Module) -> list[str]:
    """Put modules with limited partial sums in the place of layers; returns their names."""
    names = []
    for layer in [node for node in graph.nodes if node.name in plan.accumulators]:
        x, weight = (plan.tensors[keys[str(source.target)]] for source in layer.args[:2])
        names.append(f"sums_{layer.name}")
        root.add_module(
            names[-1], PartialSums(layer.target, tuple(layer.args[3:]), x, weight, plan.accumulators[layer.name])
        )
        with graph.inserting_before(layer):
            call = graph.create_node("call_module", names[-1], tuple(layer.args[:3]))
        layer.replace_all_uses_with(call)
        graph.erase_node(layer)
    return names


def _rounding(key: str, plan: QuantizationPlan) -> nn.Module:
    if key in plan.tensors:
        return FakeQuantize(plan.tensors[key])
    return HalfPrecision(plan.formats[key]) if key in plan.formats else DynamicQuantize()


def described(example_inputs: tuple[Any, ...]) -> tuple[ExampleInput, ...]:
    """Say what a plan keeps of the inputs of one call.

    Raises:
        ModelError: They are not tensors with the batch first.

    Example:
        >>> described((torch.zeros(1, 7, dtype=torch.long),))
        (ExampleInput(shape=(1, 7), dtype='int64'),)
    """
    for x in example_inputs:
        if not isinstance(x, Tensor) or not x.dim():
            found = "a tensor without dimensions" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise ModelError(
                f"quantization takes models whose inputs are tensors, batch first; one of example_inputs is {found}: "
                "wrap the model in a module that takes tensors, or quantize a part that does, such as its backbone"
            )
    return tuple(ExampleInput(tuple(x.shape), str(x.dtype).removeprefix("torch.")) for x in example_inputs)


def captured_and_folded(model: nn.Module, inputs: tuple[ExampleInput, ...]) -> Captured:
    """Capture a model for such inputs, with batch normalization folded."""
    captured = capture(model, tuple(torch.zeros(x.shape, dtype=getattr(torch, x.dtype)) for x in inputs))
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
    unknown = sorted(key for key in plan.keys if key.rpartition(".")[0] not in by_name and key not in by_name)
    if unknown:
        raise ModelError(f"the quantization plan was made for another model: it names {unknown[0]}")
    keys: dict[str, str] = {}
    for key in plan.keys:
        name = f"quantize_{key.replace('.', '_')}"
        keys[name] = key
        owner, _, part = key.rpartition(".")
        if owner:
            _insert_before(graph, by_name[owner], ("input", "weight", "bias").index(part), name)
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
            root.register_buffer(source.name, values[source.name].detach())
            copies[source] = graph.get_attr(source.name)
        return copies[source]

    for node in simulator.captured.graph.nodes:
        if node.op == "output" and len(node.args[0]) == 1:
            graph.output(copied(node.args[0][0]))
        elif node.name not in values:
            copies[node] = graph.node_copy(node, copied)
    for name, key in simulator.keys.items():
        root.add_module(name, Marker(key))
    for name in simulator.sums:
        root.add_module(name, getattr(simulator.module, name))
    return fx.GraphModule(root, graph)
