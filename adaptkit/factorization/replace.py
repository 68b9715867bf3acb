"""Factorizing the layers of a model: choose, decide the ranks, replace, and say what was left alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from adaptkit.errors import TargetError
from adaptkit.factorization.base import Factorization
from adaptkit.factorization.choose import choose_ranks
from adaptkit.factorization.layers import Candidate, build, no_smaller, sort_out
from adaptkit.factorization.schemes import Ranks, Scheme
from adaptkit.factorization.times import PairTimes
from adaptkit.progress import Silent
from adaptkit.pruning.masks import mark
from adaptkit.surgery import find_modules, replace_module
from adaptkit.technique import Context

_TIMES = "factorized_times.json"


def factorize(technique: Factorization, model: nn.Module, context: Context) -> nn.Module:
    """Replace the layers that a technique names, in place; its notes say what became of each.

    Args:
        technique: The settings.
        model: What to change.
        context: Example inputs, and calibration data where the settings need some.

    Raises:
        TargetError: There is no layer to factorize, or the smallest ranks cost more than the budget.
        DataError: Calibration data is needed, and there is none.
    """
    candidates, left = _candidates(technique, model, context)
    path = context.workspace / _TIMES if context.workspace else None
    times = PairTimes(path, technique.threads, technique.batch_size)
    progress = context.progress or Silent()
    replaced: list[_Replaced] = []
    ranks = choose_ranks(technique, candidates, times) if candidates else {}
    for number, candidate in enumerate(candidates):
        chosen = ranks[candidate.name]
        if isinstance(chosen, str):
            left[candidate.name] = chosen
        elif reason := _objection(technique, candidate, chosen, times):
            left[candidate.name] = reason
        else:
            replaced.append(_replace(model, candidate, chosen))
        progress.update(number + 1, len(candidates), candidate.name)
    context.notes.extend(_notes(technique.name, replaced, left))
    context.notes.extend(_missed(technique, sum(candidate.shape.macs for candidate in candidates), replaced))
    return model


def _candidates(technique: Factorization, model: nn.Module, context: Context) -> tuple[list[Candidate], dict[str, str]]:
    found = find_modules(model, technique.targets, technique.ignore)
    wanted = {name: technique.scheme(module) for name, module in found.items()}
    layers = {name: found[name] for name, scheme in wanted.items() if scheme is not None}
    if not layers:
        raise TargetError(
            f"{technique.name}: targets={list(technique.targets)} and ignore={list(technique.ignore)} leave no layer "
            f"of {type(model).__name__} to factorize"
        )
    shapes, left = sort_out(model, layers, context.example_inputs)
    schemes: dict[str, Scheme] = {}
    for name in shapes:
        scheme = wanted[name]
        if isinstance(scheme, str):
            left[name] = scheme
        elif scheme is not None:
            schemes[name] = scheme
    schemes = technique.schemes(model, schemes, context)
    whitenings = technique.whitenings(model, schemes, context)
    return [
        Candidate(name, layer, shapes[name], scheme, whitenings.get(name))
        for name, scheme in schemes.items()
        if isinstance(layer := found[name], (nn.Conv2d, nn.Linear))
    ], left


def _objection(technique: Factorization, candidate: Candidate, ranks: Ranks, times: PairTimes) -> str | None:
    parts = candidate.scheme.shapes(candidate.shape, ranks)
    if no_smaller(candidate.shape, parts):
        return f"{_rank(ranks)} would save nothing"
    if technique.undo_slower and (ratio := times.ratio(candidate.shape, parts)) >= 1:
        return f"{_rank(ranks)} would take {ratio:.2f} × its time on ONNX Runtime"
    return None


@dataclass(frozen=True)
class _Replaced:
    name: str
    ranks: Ranks
    error: float
    weights: tuple[int, int]
    macs: tuple[int, int]
    zeros: int


def _replace(model: nn.Module, candidate: Candidate, ranks: Ranks) -> _Replaced:
    parts = candidate.scheme.shapes(candidate.shape, ranks)
    factors, error = candidate.factors(ranks)
    sequence = build(candidate.layer, parts, factors)
    if candidate.scheme.sparse:
        mark(sequence, [name for name, parameter in sequence.named_parameters() if parameter.dim() > 1])
    replace_module(model, candidate.name, sequence)
    return _Replaced(
        candidate.name,
        ranks,
        error,
        (candidate.shape.weights, sum(part.weights for part in parts)),
        (candidate.shape.macs, sum(part.macs for part in parts)),
        sum(int((factor == 0).sum()) for factor in factors),
    )


def _notes(technique: str, replaced: list[_Replaced], left: Mapping[str, str]) -> list[str]:
    notes = []
    if replaced:
        before, after = (sum(layer.weights[when] for layer in replaced) for when in (0, 1))
        macs_before, macs_after = (sum(layer.macs[when] for layer in replaced) for when in (0, 1))
        zeros = sum(layer.zeros for layer in replaced)
        notes.append(
            f"{technique}: {len(replaced)} of {len(replaced) + len(left)} layers factorized, their weights "
            f"{_count(before)} → {_count(after)}{f' ({100 * zeros / after:.1f} % zeros)' if zeros else ''}, "
            f"multiply-accumulates {_count(macs_before)} → {_count(macs_after)}"
        )
        each = "; ".join(f"{layer.name} {_rank(layer.ranks)}, error {layer.error:.3f}" for layer in replaced)
        notes.append(f"{technique}: relative error of the weights: {each}")
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, reason in left.items():
        reasons[reason].append(name)
    notes += [f"{technique}: left alone, because {reason}: {', '.join(names)}" for reason, names in reasons.items()]
    return notes


def _missed(technique: Factorization, macs: int, replaced: list[_Replaced]) -> list[str]:
    rule, value = technique.rule()
    wanted = float(value) if rule == "macs" else 1.0
    kept = 1 - sum(layer.macs[0] - layer.macs[1] for layer in replaced) / max(macs, 1)
    if kept <= wanted:
        return []
    return [
        f"{technique.name}: macs: {wanted:g} is missed, because of the layers that were left alone: {kept:.3g} stay"
    ]


def _rank(ranks: Ranks) -> str:
    return f"rank {' × '.join(str(rank) for rank in ranks)}"


def _count(number: int) -> str:
    return f"{number / 1e6:.3g} M" if number >= 1e6 else f"{number:,}"
