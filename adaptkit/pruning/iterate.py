"""The steps of structured pruning: find groups, score, select, cut, recover, again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adaptkit.errors import DataError, TargetError
from adaptkit.pruning import importance, importance_data
from adaptkit.pruning.channels import ChannelGraph, dependency_groups, remove
from adaptkit.pruning.costs import cost_of, latency_cost
from adaptkit.pruning.group_lasso import with_group_lasso
from adaptkit.pruning.groups import Group, Selection
from adaptkit.pruning.reconstruct import FEWEST, kept_outputs, outputs_before, reconstruct
from adaptkit.pruning.select import Candidate, Choice, Cost, candidate, choose
from adaptkit.pruning.sensitivity import Sensitivity
from adaptkit.surgery import find_modules
from adaptkit.technique import Context
from adaptkit.training.fit import fit
from adaptkit.training.losses import StepLoss, by_target, supervised, target_loss

if TYPE_CHECKING:
    from adaptkit.profiling.layer_latency import LatencyTable
    from adaptkit.pruning.structured import StructuredPruning

_SHOWN = 5
_ROUNDS = 2
_FROM_DATA = ("taylor", "obd", "activation")


@dataclass
class _Run:
    settings: StructuredPruning
    context: Context
    targets: dict[str, bool]
    table: LatencyTable | None = None
    whole: float = 0.0
    widths: dict[str, tuple[int, int]] = field(default_factory=dict)


def prune(settings: StructuredPruning, model: nn.Module, context: Context) -> nn.Module:
    """Cut a model to the target of the settings, geometrically over the iterations.

    Args:
        settings: What to do.
        model: Edited.
        context: Example inputs, and data where importance, sensitivity or recovery need it.

    Raises:
        DataError: Data that the settings need is missing.
        TargetError: The target cannot be reached.
    """
    _require_data(settings, context)
    # The patterns are of the model as it was given: looking for groups takes attention apart into other layers.
    run = _Run(settings, context, _targets(settings, model), _latency_table(settings, context))
    training = model.training
    _sparsify(run, model)
    for number in range(settings.iterations):
        _iteration(run, model, number)
        _recover(run, model, number)
    model.train(training)
    _note_widths(run)
    return model


def _require_data(settings: StructuredPruning, context: Context) -> None:
    if settings.importance in _FROM_DATA and context.calibration is None:
        raise DataError(f"importance: {settings.importance} needs calibration data; give some, or use group_l2")
    if settings.ranking == "sensitivity" and context.calibration is None:
        raise DataError("ranking: sensitivity needs calibration data; give some, or use global")
    if settings.reconstruct and context.calibration is None:
        raise DataError("reconstruct needs calibration data; give some, or leave it out")
    if settings.sparse_epochs > 0 and context.train is None:
        raise DataError("sparse_epochs needs training data; give some, or set sparse_epochs: 0")
    if settings.recovery_epochs > 0 and context.train is None:
        raise DataError("recovery_epochs needs training data; give some, or set recovery_epochs: 0")


def _latency_table(settings: StructuredPruning, context: Context) -> LatencyTable | None:
    if settings.latency is None:
        return None
    from adaptkit.profiling.layer_latency import LatencyTable

    folder = context.workspace
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return LatencyTable(None if folder is None else folder / "latency.json")


def _iteration(run: _Run, model: nn.Module, number: int) -> None:
    settings = run.settings
    graph = dependency_groups(model, run.context.example_inputs)
    for note in graph.notes:
        if note not in run.context.notes:
            run.context.notes.append(note)
    open_groups = _open(run, graph)
    if not open_groups:
        raise TargetError("nothing can be pruned: no layer that targets and ignore leave has removable channels")
    kind, target = settings.target()
    layers = latency_cost(model, graph, run.table) if run.table is not None else None
    cost = cost_of(graph, kind, open_groups, layers)
    now = cost(torch.tensor([graph.groups[n].size for n in open_groups], dtype=torch.double).numpy())
    run.whole = run.whole or now
    share = target ** ((number + 1) / settings.iterations) * run.whole / now
    if share >= 1:
        return
    choice = _choose(run, model, graph, open_groups, cost, share)
    _remember(run, graph, open_groups, choice)
    _cut(run, model, graph, {n: units for n, units in zip(open_groups, choice.removed, strict=True) if units})


def _cut(run: _Run, model: nn.Module, graph: ChannelGraph, selection: Selection) -> None:
    """Remove the units, and refit what is left where that is asked for."""
    if not run.settings.reconstruct:
        remove(model, graph, selection)
        return
    assert run.context.calibration is not None
    before = outputs_before(model, run.context.calibration)
    remove(model, graph, selection)
    if before is None:
        run.context.notes.append(
            f"nothing reconstructed: that takes at least {FEWEST} calibration samples of one tensor"
        )
    else:
        run.context.notes.append(reconstruct(model, before, kept_outputs(graph, selection, before.outputs)))


def _targets(settings: StructuredPruning, model: nn.Module) -> dict[str, bool]:
    """Say of every module whether it is a target, by itself or by a module around it, and not ignored so."""
    wanted = find_modules(model, settings.targets)
    unwanted = find_modules(model, settings.ignore)

    def within(path: str, names: dict[str, nn.Module]) -> bool:
        parts = path.split(".")
        return any(".".join(parts[:end]) in names for end in range(1, len(parts) + 1))

    found = {path: within(path, wanted) and not within(path, unwanted) for path, _ in model.named_modules()}
    return {**found, "": "*" in settings.targets}  # parameters of the model itself, which has no name


def _open(run: _Run, graph: ChannelGraph) -> list[int]:
    """List the groups all of whose producing layers are targets."""

    def is_target(path: str) -> bool:
        while path not in run.targets:  # inside an attention that was taken apart
            path = path.rpartition(".")[0]
        return run.targets[path]

    return [number for number, group in enumerate(graph.groups) if all(map(is_target, group.producers()))]


def _choose(
    run: _Run, model: nn.Module, graph: ChannelGraph, open_groups: Sequence[int], cost: Cost, share: float
) -> Choice:
    settings = run.settings
    scores = _scores(run, model, graph, open_groups)
    families = _families(settings.ranking, model, graph, open_groups)
    candidates = [
        candidate(one.tolist(), graph.groups[n].width, settings.round_to, settings.min_channels, family)
        for n, one, family in zip(open_groups, scores, families, strict=True)
    ]
    if settings.ranking == "sensitivity":
        return _by_sensitivity(run, model, [graph.groups[n] for n in open_groups], candidates, cost, share)
    return choose(candidates, cost, share, per_cost=settings.latency is not None)


def _by_sensitivity(
    run: _Run, model: nn.Module, groups: Sequence[Group], candidates: Sequence[Candidate], cost: Cost, share: float
) -> Choice:
    """Choose where the loss rises least, with the other groups whole and then cut as was chosen; take the better."""
    assert run.context.calibration is not None
    sensitivity = Sensitivity(model, groups, run.context.calibration, run.context.loss or target_loss)
    tried: list[tuple[float, int, Choice]] = []
    removed: Sequence[Sequence[int]] = [()] * len(groups)
    for number in range(_ROUNDS):
        rises = sensitivity.rises(candidates, removed)
        known = [replace(one, rises=curve) for one, curve in zip(candidates, rises, strict=True)]
        choice = choose(known, cost, share, per_cost=True)
        removed = choice.removed
        tried.append((sensitivity.loss(removed), number, choice))
    return min(tried, key=lambda one: one[:2])[2]


def _families(ranking: str, model: nn.Module, graph: ChannelGraph, open_groups: Sequence[int]) -> list[int]:
    """Say which groups are ranked together: all, none, or those that are isomorphic."""
    if ranking in ("global", "sensitivity"):
        return [0] * len(open_groups)
    if ranking == "per_layer":
        return list(range(len(open_groups)))
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    keys = [graph.groups[number].kind(kinds) for number in open_groups]
    order = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return [order[key] for key in keys]


def _scores(run: _Run, model: nn.Module, graph: ChannelGraph, open_groups: Sequence[int]) -> list[Tensor]:
    """Score the units; what estimates no loss is made comparable by the mean of the group."""
    measure = _measure(run, model)
    scores = [measure(graph.groups[number]) for number in open_groups]
    if run.settings.importance in ("taylor", "obd", "lamp", "random"):
        return scores
    return [importance.normalized(one) for one in scores]


def _measure(run: _Run, model: nn.Module) -> Callable[[Group], Tensor]:
    """Prepare the measure that the settings ask for."""
    kind = run.settings.importance
    tensors = {name: p.detach() for name, p in model.named_parameters()}
    if kind in _FROM_DATA:
        return _measure_on_data(run, model, tensors)
    if kind == "random":
        generator = torch.Generator().manual_seed(run.context.seed)
        return lambda group: importance.random(group, generator)
    if kind == "bn_scale":
        scales = importance.norm_scales(model)
        return lambda group: importance.bn_scale(group, tensors, scales)
    measure = {
        "l1": importance.l1,
        "group_l2": importance.group_l2,
        "fpgm": importance.fpgm,
        "lamp": importance.lamp,
    }[kind]
    return lambda group: measure(group, tensors)


def _measure_on_data(run: _Run, model: nn.Module, tensors: importance.Tensors) -> Callable[[Group], Tensor]:
    data, loss = run.context.calibration, run.context.loss or target_loss
    assert data is not None
    if run.settings.importance == "taylor":
        products = importance_data.taylor_products(model, data, loss)
        return lambda group: importance.taylor(group, products)
    if run.settings.importance == "obd":
        curvature = importance_data.hessian_diagonal(model, data, loss, run.context.seed)
        return lambda group: importance.obd(group, tensors, curvature)
    means = importance_data.activation_means(model, data)
    return lambda group: importance.activation(group, means, tensors)


def _remember(run: _Run, graph: ChannelGraph, open_groups: Sequence[int], choice: Choice) -> None:
    for place, number in enumerate(open_groups):
        group = graph.groups[number]
        before = run.widths.get(group.label, (group.size * group.width, 0))[0]
        run.widths[group.label] = before, (group.size - len(choice.removed[place])) * group.width
    if choice.relaxed:
        labels = ", ".join(graph.groups[open_groups[place]].label for place in choice.relaxed)
        run.context.notes.append(
            f"rounding to {run.settings.round_to} channels was given up to meet the target in: {labels}"
        )


def _sparsify(run: _Run, model: nn.Module) -> None:
    """Train with a penalty on whole units, so that what is cut later matters little."""
    settings = run.settings
    if settings.sparse_epochs == 0:
        return
    graph = dependency_groups(model, run.context.example_inputs)
    groups = [graph.groups[number] for number in _open(run, graph)]
    loss = with_group_lasso(_loss(run), groups, settings.sparse_strength)
    _train(run, model, settings.sparse_epochs, loss, "sparse", run.context.seed)


def _recover(run: _Run, model: nn.Module, number: int) -> None:
    settings = run.settings
    if settings.recovery_epochs > 0:
        epochs = settings.recovery_epochs / settings.iterations
        _train(run, model, epochs, _loss(run), f"recovery-{number + 1}", run.context.seed + number)


def _loss(run: _Run) -> StepLoss:
    criterion = run.context.loss
    return by_target(run.settings.fit.label_smoothing) if criterion is None else supervised(criterion)


def _train(run: _Run, model: nn.Module, epochs: float, loss: StepLoss, name: str, seed: int) -> None:
    context = run.context
    assert context.train is not None
    folder = None if context.workspace is None else context.workspace / name
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    fit(
        model,
        context.train,
        epochs=epochs,
        settings=run.settings.fit,
        loss=loss,
        seed=seed,
        workspace=folder,
        progress=context.progress,
        tag=run.settings.model_dump_json(),
    )


def _note_widths(run: _Run) -> None:
    cut = [(after / before, label, before, after) for label, (before, after) in run.widths.items() if after < before]
    if cut:
        listed = ", ".join(f"{label} {before} → {after}" for _, label, before, after in sorted(cut)[:_SHOWN])
        run.context.notes.append(f"cut most (channels): {listed}")
