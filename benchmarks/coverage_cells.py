"""The cells of the coverage table: what is tried with a model, one function a column.

Seconds are those of the processor; other work on the machine changes them less than those of the clock, but it does.
The reference is the engine's own test: the model with every removed slice set to zero.
"""

import contextlib
import gc
import itertools
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import coverage_models
import onnxruntime
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from adaptkit.errors import TargetError
from adaptkit.export.onnx import export_onnx
from adaptkit.export.traced import takes_only_tensors
from adaptkit.pruning.channels import ChannelGraph, dependency_groups, remove
from adaptkit.specs import ExportSpec
from adaptkit.technique import Context
from adaptkit.techniques import TECHNIQUES
from tests.pruning.reference import masked_norms, outputs_of, random_selection, randomize, settled, zero

Case = coverage_models.Case
PRUNED_SHARE = 0.5
TOLERANCES = {torch.float64: 1e-7, torch.float32: 1e-3}
FILE_TOLERANCE, INT8_TOLERANCE = 1e-3, 0.25
CALIBRATION = 8


def prune(case: Case) -> dict[str, Any]:
    """Remove half of the units of every group; compare with zeros, train one step."""
    model = randomize(case.build()).to(case.dtype).eval()
    inputs = coverage_models.as_dtype(case.inputs(), case.dtype)
    before = _parameters(model)
    graph, finding = _timed(lambda: dependency_groups(model, inputs))
    selection = random_selection(graph, PRUNED_SHARE, seed=0)
    with masked_norms(zero(model, graph, selection)):
        wanted = _outputs(model, graph)
    _, cutting = _timed(lambda: remove(model, graph, selection))
    difference = max(itertools.starmap(_relative, zip(_outputs(model, graph), wanted, strict=True)))
    trains = _trains(model.float(), case)
    return {
        "ok": bool(difference < TOLERANCES[case.dtype] and trains and selection),
        "seconds": finding + cutting,
        "groups": len(graph.groups),
        "left_alone": list(graph.notes),
        "parameters": before,
        "parameters_after": _parameters(model),
        "difference": difference,
        "trains": trains,
    }


def _outputs(model: nn.Module, graph: ChannelGraph) -> list[Tensor]:
    """Run what was captured, in the modes it was captured in: the model, or its parts on what they were given."""
    found = []
    for program in (one.program for one in graph.walked):
        settled(model, program.training)
        found += outputs_of(model.get_submodule(program.root), program.inputs)
    return found


def _relative(got: Tensor, wanted: Tensor) -> float:
    if got.shape != wanted.shape or not torch.isfinite(wanted).all():
        return float("inf")
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30)) if wanted.numel() else 0.0


def _trains(model: nn.Module, case: Case) -> bool:
    model.train()
    loss = case.loss(model, case.inputs())
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    return bool(torch.isfinite(loss))


def export(case: Case) -> dict[str, Any]:
    """Export the model with half of its units removed; the file computes what it does."""
    model, inputs = randomize(case.build()).eval(), case.inputs()
    graph = dependency_groups(model, inputs)
    remove(model, graph, random_selection(graph, PRUNED_SHARE, seed=0))
    if case.selects:
        _take_statistics(model, inputs)
    return _exported(model, inputs, outputs_of(model, inputs), FILE_TOLERANCE)


def _take_statistics(model: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Give normalizations the statistics of the inputs, so that random weights pass on how places differ."""

    def take(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(given[0], (0, 2, 3), correction=0)
        module.running_mean.copy_(mean)  # type: ignore[operator, union-attr]
        module.running_var.copy_(variance.clamp(min=1e-6))  # type: ignore[operator, union-attr]

    normalizations = [module for module in model.modules() if hasattr(module, "running_var")]
    hooks = [module.register_forward_pre_hook(take) for module in normalizations]
    outputs_of(model, inputs)
    for hook in hooks:
        hook.remove()


def factorize(case: Case) -> dict[str, Any]:
    """Factorize with the defaults and export what comes out: the file computes what that does."""
    model, inputs = randomize(case.build()).eval(), case.inputs()
    if case.selects:
        _take_statistics(model, inputs)
    return _applied("factorize.svd", model, inputs)


def int8(case: Case) -> dict[str, Any]:
    """Quantize and export: the file computes what the float model does, nearly.

    Of a model that takes more than tensors, as detectors do, all parts that take tensors are, each by itself.
    """
    model, inputs = randomize(case.build()).eval(), case.inputs()
    if takes_only_tensors(inputs):
        return _applied("quantize.static", model, inputs, INT8_TOLERANCE, calibration=CALIBRATION)
    programs = [one.program for one in dependency_groups(model, inputs).walked]
    parts = {program.root: program.inputs for program in programs if takes_only_tensors(program.inputs)}
    found, left_alone = [], []
    for root, given in parts.items():
        try:
            found.append(
                _applied("quantize.static", model.get_submodule(root), given, INT8_TOLERANCE, calibration=CALIBRATION)
            )
        except TargetError as refusal:  # one that is made of transposed convolutions alone, say
            left_alone.append(f"{root}: {refusal}")
    worst = max(found, key=lambda cell: float(cell["difference"]))
    seconds = {key: sum(cell[key] for cell in found) for key in ("seconds", "apply_seconds")}
    return {
        **worst,
        **seconds,
        "parts": list(parts),
        "left_alone": [*(note for cell in found for note in cell["left_alone"]), *left_alone],
    }


def _applied(
    name: str, model: nn.Module, inputs: tuple[Any, ...], tolerance: float | None = None, **settings: Any
) -> dict[str, Any]:
    """Apply a technique and export; where there is a tolerance, compare with what the model did before."""
    context = Context(example_inputs=inputs, calibration=_calibration(inputs))
    before = outputs_of(model, inputs)
    model, seconds = _timed(lambda: TECHNIQUES[name](**settings).apply(model, context))
    wanted = before if tolerance else outputs_of(model.eval(), inputs)
    found = _exported(model, inputs, wanted, tolerance or FILE_TOLERANCE)
    return {**found, "apply_seconds": seconds, "left_alone": list(context.notes)}


def peer(case: Case) -> dict[str, Any]:
    """Time finding the groups and cutting half of the channels, here and with Torch-Pruning, on the same model."""
    import torch_pruning

    inputs = case.inputs()

    def ours(model: nn.Module) -> None:
        graph = dependency_groups(model, inputs)
        remove(model, graph, random_selection(graph, PRUNED_SHARE, seed=0))

    def theirs(model: nn.Module) -> None:
        importance = torch_pruning.importance.RandomImportance()
        torch_pruning.BasePruner(model, inputs, importance, pruning_ratio=PRUNED_SHARE).step()

    seconds = _timed_cut(case, ours)[1]
    return {"seconds": seconds, "torch_pruning": _or_error(lambda: _peer(case, theirs))}


def _timed_cut(case: Case, cut: Callable[[nn.Module], None]) -> tuple[nn.Module, float]:
    model = _without_initialization(case)
    return model, _timed(lambda: cut(model))[1]


def _peer(case: Case, cut: Callable[[nn.Module], None]) -> dict[str, Any]:
    """Time Torch-Pruning; see whether the model got smaller, runs and trains."""
    model, seconds = _timed_cut(case, cut)
    smaller = _parameters(model) < _parameters(_without_initialization(case))
    outputs_of(model.eval(), case.inputs())
    return {"ok": smaller and _trains(model, case), "seconds": seconds}


def _without_initialization(case: Case) -> nn.Module:
    """Build a model fast: times do not depend on its weights."""
    fillers = [name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")]
    with contextlib.ExitStack() as stack:
        for name in fillers:
            stack.enter_context(mock.patch.object(nn.init, name, lambda tensor, *_, **__: tensor))
        model = case.build()
    for parameter in model.parameters():
        parameter.data.fill_(0.01)
    gc.collect()
    return model.eval()


def _calibration(inputs: tuple[Any, ...]) -> Any:
    if not all(isinstance(x, Tensor) for x in inputs):
        return None
    targets = torch.zeros(len(inputs[0]), dtype=torch.long)
    return (inputs[0] if len(inputs) == 1 else inputs), targets


def _exported(model: nn.Module, inputs: tuple[Any, ...], wanted: list[Tensor], tolerance: float) -> dict[str, Any]:
    """Write the ONNX file, run it, and compare: mean difference over the deviation of what is wanted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        _, seconds = _timed(lambda: export_onnx(model.eval(), inputs, path, spec=ExportSpec(single_file=False)))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [taken.name for taken in session.get_inputs()]
        feeds = dict(zip(names, (x.numpy() for x in tree_leaves(inputs)), strict=True))
        got = [torch.from_numpy(x) for x in session.run(None, feeds)]
    together = 1 if takes_only_tensors(inputs) else len(wanted) // len(inputs[0])
    pairs = zip(_grouped(got, together), _grouped(wanted, together), strict=True)
    differences = [_difference(one, other) for one, other in pairs]
    return {"ok": max(differences) < tolerance, "seconds": seconds, "difference": max(differences)}


def _grouped(outputs: list[Tensor], together: int) -> list[list[Tensor]]:
    """Put together what describes the same things: boxes, labels, scores, … of the objects in one image."""
    return [outputs[start : start + together] for start in range(0, len(outputs), together)]


def _difference(got: list[Tensor], wanted: list[Tensor]) -> float:
    """Compare one output; objects of an image each with the most similar one, since equal scores have no order."""
    if len(wanted) == 1:
        return _deviations(got[0], wanted[0])
    if not len(wanted[0]) or len(got[0]) != len(wanted[0]):
        return float("inf")
    scales = [x.double().std(correction=0).clamp(min=1e-6) * x[0].numel() for x in wanted]
    distances = torch.cdist(_rows(got, scales), _rows(wanted, scales), p=1)
    return float(torch.maximum(distances.amin(0).mean(), distances.amin(1).mean()))


def _rows(outputs: list[Tensor], scales: list[Tensor]) -> Tensor:
    """Lay all that describes an object side by side."""
    return torch.cat([x.double().reshape(len(x), -1) / scale for x, scale in zip(outputs, scales, strict=True)], 1)


def _deviations(got: Tensor, wanted: Tensor) -> float:
    """Say how far a tensor is from another, in the other's deviations."""
    if got.shape != wanted.shape:
        return float("inf")
    if not wanted.numel():
        return 0.0
    got, wanted = got.double(), wanted.detach().double()
    return float((got - wanted).abs().mean() / wanted.std(correction=0).clamp(min=1e-6))


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    return work(), time.process_time() - started


def _or_error(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run something; where it fails, say why."""
    try:
        return {"ok": True, **work()}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        lines = (str(error).strip() or type(error).__name__).splitlines()
        return {"ok": False, "error": f"{type(error).__name__}: {lines[0][:300]} ({where.name}, line {where.lineno})"}


COLUMNS: dict[str, Callable[[Case], dict[str, Any]]] = {
    "prune": prune,
    "export": export,
    "factorize": factorize,
    "int8": int8,
    "peer": peer,
}


def cell(name: str, column: str) -> dict[str, Any]:
    """Try one thing with one model."""
    torch.manual_seed(0)
    return _or_error(lambda: COLUMNS[column](coverage_models.CASES[name]))
