"""prune.admm: weights are pulled into a set of sparse ones while the model trains, or layer by layer without data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from adaptkit.errors import DataError
from adaptkit.pruning.sparse import Sparsity, TrainedSparsePruning
from adaptkit.technique import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptkit.pruning.constraints import Wanted
    from adaptkit.pruning.projections import ConstraintSet

_TARGETS = ("sparsity", "macs", "params")
_DEFAULT_TARGET = ("sparsity", 0.5)
_SHOWN = 6


class ADMMPruning(TrainedSparsePruning):
    """Pull weights into a set of sparse ones by ADMM, so that little is lost when the rest is cut off.

    min loss(W) with W in S, solved by turns: training minimises loss(W) + Σ ρ/2 ‖W − Z + U‖²; after each of `rounds`
    equal parts of it, Z ← Π(W + U), U ← U + W − Z, ρ ← growth · ρ. In the end W ← Π(W), and the zeros stay. S holds the
    tensors with so many nonzero weights (`element`), output channels (`filter`), input channels (`channel`), columns
    of the matrix out × in·k·k (`column`), or kernels of four weights in one of `patterns` patterns (`pattern`). How
    many: the same `sparsity` everywhere, or a budget of `params` or `macs` that is shared among the layers by what
    their units are worth. The notes give the primal residual ‖W − Z‖ / ‖W‖ and the dual one ρ ‖Z − Z_before‖ / ‖W‖.

    With `data: synthetic` no image is read: each layer, in the order in which they run, is to return for generated
    inputs what it did, min ‖W X' − Y‖ in Frobenius norm with W in S, solved in closed form by turns; `epochs` and
    `fit` then mean nothing.

    Sources: Zhang et al. 2018, "A systematic DNN weight pruning framework using alternating direction method of
    multipliers"; Niu et al. 2020, "PatDNN" (patterns); Zhan et al. 2021, "A privacy-preserving-oriented DNN pruning and
    mobile acceleration framework" (layer by layer).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> context = Context(example_inputs=(torch.zeros(2, 8),))
        >>> net = ADMMPruning(sparsity=0.75, data="synthetic").apply(nn.Sequential(nn.Linear(8, 4)), context)
        >>> int((net[0].weight == 0).sum())
        24
    """

    name: ClassVar[str] = "prune.admm"

    constraint: Literal["element", "filter", "channel", "column", "pattern"] = Field(
        "element", description="What becomes zero as a whole."
    )
    sparsity: Sparsity | None = Field(
        None, description="Share of zeros in every layer; 0.5 where no target is given, 5/9 at least for patterns."
    )
    params: Sparsity | None = Field(None, description="Share of the targets' weights to keep, over all layers.")
    macs: Sparsity | None = Field(None, description="Share of the targets' multiply-accumulates to keep.")
    patterns: Annotated[int, Field(ge=1, le=56)] = Field(8, description="How many patterns kernels may have.")
    data: Literal["train", "synthetic"] = Field("train", description="Train, or match layers on generated inputs.")
    epochs: Annotated[float, Field(gt=0)] = Field(2.0, description="Passes over the training data before the cut.")
    rounds: PositiveInt = Field(20, description="How often Z and U are renewed, at most once a step.")
    rho: Annotated[float, Field(gt=0)] = Field(0.01, description="ρ in the first round.")
    growth: Annotated[float, Field(ge=1)] = Field(1.25, description="Factor of ρ from round to round.")
    samples: PositiveInt = Field(128, description="Generated inputs, for data: synthetic.")
    input_steps: Annotated[int, Field(ge=0)] = Field(
        20, description="Steps that move generated inputs to what batch normalizations hold, for data: synthetic."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> ADMMPruning:
        given = [target for target in _TARGETS if getattr(self, target) is not None]
        if len(given) > 1:
            raise ValueError(f"give exactly one of sparsity, params, macs; found {' and '.join(given)}")
        if self.data == "synthetic" and self.recovery_epochs > 0:
            raise ValueError("data: synthetic reads no training data, so recovery_epochs must be 0")
        return self

    def wanted(self) -> Wanted:
        """Say what the weights are to become."""
        from adaptkit.pruning.constraints import Wanted

        given = ((target, getattr(self, target)) for target in _TARGETS)
        cost, share = next(((kind, share) for kind, share in given if share is not None), _DEFAULT_TARGET)
        if self.constraint == "pattern" and (cost, share) == _DEFAULT_TARGET:
            share = 5 / 9
        return Wanted(self.constraint, cost, share, self.patterns)

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Make the model sparse in place.

        Raises:
            TargetError: No layer has such units, or the target cannot be reached.
            DataError: There is no training data and data is not synthetic, or it is and inputs cannot be made up.
            ModelError: The model cannot be captured, where the constraint needs that.
        """
        from adaptkit.pruning.constraints import constraint_sets
        from adaptkit.pruning.masks import apply_masks

        if self.data == "train" and context.train is None:
            raise DataError(f"{self.name} needs training data: give Context(train=...), or set data: synthetic")
        targets = weights = self.weights(model)
        if self.data == "synthetic":
            # No image is read, for the statistics of normalizations neither.
            context = context.replace(calibration=None)
            weights = self._matchable(model, weights, context)
        sets, notes = constraint_sets(model, context.example_inputs, weights, self.wanted(), targets)
        context.notes.extend(notes)
        masks = self._matched(model, sets, context) if self.data == "synthetic" else self._trained(model, sets, context)
        apply_masks(model, masks)
        return self.finish(model, context, list(masks))

    def _trained(self, model: nn.Module, sets: dict[str, ConstraintSet], context: Context) -> dict[str, Tensor]:
        from adaptkit.pruning.admm_state import Admm, penalized
        from adaptkit.pruning.schedules import is_update
        from adaptkit.training.losses import by_target, supervised

        state = Admm(model, sets, self.rho, self.growth, self.rounds)

        def after_step(step: int, total: int) -> None:
            if is_update(step, 0, total, self.rounds):
                state.renew()

        plain = by_target(self.fit.label_smoothing) if context.loss is None else supervised(context.loss)
        self.train(state, context, self.epochs, loss=penalized(plain), after_step=after_step)
        context.notes.append(_residuals(state.residuals(), self.rho, self.growth))
        return state.masks()

    def _matchable(
        self, model: nn.Module, weights: dict[str, nn.Parameter], context: Context
    ) -> dict[str, nn.Parameter]:
        from adaptkit.errors import TargetError
        from adaptkit.pruning.layerwise import matchable

        given = context.example_inputs
        if len(given) != 1 or not given[0].is_floating_point():
            listed = ", ".join(str(x.dtype).removeprefix("torch.") for x in given)
            raise DataError(
                f"{self.name}: data: synthetic makes up one input of real numbers; {type(model).__name__} takes "
                f"{len(given)} ({listed}). Use data: train"
            )
        found = matchable(model, weights, given)
        left = [name for name in weights if name not in found]
        if left:
            context.notes.append(f"left alone, since they cannot be matched layer by layer: {', '.join(left)}")
        if not found:
            raise TargetError(f"{self.name}: no convolution or linear layer among the targets runs")
        return found

    def _matched(self, model: nn.Module, sets: dict[str, ConstraintSet], context: Context) -> dict[str, Tensor]:
        from adaptkit.progress import Silent
        from adaptkit.pruning.layerwise import match_layers
        from adaptkit.pruning.synthetic import synthetic_inputs

        given = context.example_inputs[0]
        shape = tuple(given.shape[1:])
        x = synthetic_inputs(model, shape, self.samples, self.input_steps, context.seed, given.dtype)
        solutions = match_layers(model, sets, x, (self.rho, self.growth, self.rounds), context.progress or Silent())
        worst = sorted(((one.error, name) for name, one in solutions.items()), reverse=True)[:_SHOWN]
        last = max(float(one.residuals[-1, 0]) for one in solutions.values())
        context.notes.append(
            f"matched {len(solutions)} layers on {self.samples} generated inputs, no image was read; largest errors "
            f"‖W X' − Y‖ / ‖Y‖: {', '.join(f'{name} {100 * error:.1f} %' for error, name in worst)}; largest primal "
            f"residual in the last round {last:.4f}"
        )
        return {name: one.weight != 0 for name, one in solutions.items()}


def _residuals(residuals: Tensor, rho: float, growth: float) -> str:
    rounds = len(residuals)
    shown = sorted({round(place * (rounds - 1) / max(1, _SHOWN - 1)) for place in range(min(_SHOWN, rounds))})
    listed = "; ".join(f"{n + 1}: {residuals[n, 0]:.4f}, {residuals[n, 1]:.4f}" for n in shown)
    return (
        f"ADMM residuals (round: primal ‖W − Z‖ / ‖W‖, dual ρ ‖Z − Z_before‖ / ‖W‖), ρ from {rho:g} to "
        f"{rho * growth ** (rounds - 1):.3g}: {listed}"
    )
