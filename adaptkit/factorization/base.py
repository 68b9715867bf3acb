"""What every kind of factorization shares: which layers, how many ranks, and what is put back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from adaptkit.errors import DataError
from adaptkit.technique import Context, Form, Technique

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptkit.factorization.schemes import Scheme

Share = Annotated[float, Field(gt=0, lt=1)]
_RULES = ("rank", "energy", "macs", "latency")
_DEFAULT_RULE = ("macs", 0.5)


class Factorization(Technique):
    """Replace layers by sequences of smaller ones; a subclass says into which, in `scheme`.

    A layer is left alone, and the report says why, where its replacement would have as many weights or
    multiply-accumulates, or would be no faster on ONNX Runtime.
    """

    refuses: ClassVar[Mapping[Form, str]] = {
        "sparse": "the factors of a sparse weight are dense, so that its zeros would be lost",
        "quantized": "a quantized model has no float layers to take apart",
    }

    targets: tuple[str, ...] = Field(("*",), description="Which layers: class names, globs or re:….")
    ignore: tuple[str, ...] = Field((), description="Which layers stay.")
    rank: PositiveInt | Share | Literal["vbmf"] | None = Field(
        None,
        description="Ranks to keep: a number, a share of the full rank, or vbmf: what variational Bayes tells from "
        "noise.",
    )
    energy: Share | None = Field(None, description="Share of ‖W‖² to keep in each layer.")
    macs: Share | None = Field(
        None, description="Share of the layers' multiply-accumulates to keep; 0.5 where no rule for the ranks is given."
    )
    latency: Share | None = Field(None, description="Share of the layers' measured ONNX Runtime time to keep.")
    round_to: PositiveInt = Field(
        8, description="Ranks are rounded up to a multiple of this, unless given as a number."
    )
    undo_slower: bool = Field(
        True, description="Time every layer beside its replacement on ONNX Runtime, and keep what is no slower."
    )
    threads: PositiveInt = Field(1, description="Threads of ONNX Runtime when layers are timed.")
    batch_size: PositiveInt = Field(1, description="Batch size when layers are timed.")

    @model_validator(mode="after")
    def _one_rule(self) -> Factorization:
        given = [rule for rule in _RULES if getattr(self, rule) is not None]
        if len(given) > 1:
            raise ValueError(f"give exactly one of {', '.join(_RULES)}; found {' and '.join(given)}")
        return self

    def rule(self) -> tuple[str, int | float | str]:
        """Return what the ranks are chosen by, and its value.

        Example:
            >>> Factorization(energy=0.9).rule(), Factorization().rule()
            (('energy', 0.9), ('macs', 0.5))
        """
        given = ((rule, getattr(self, rule)) for rule in _RULES)
        return next(((rule, value) for rule, value in given if value is not None), _DEFAULT_RULE)

    def check(self, model: nn.Module) -> list[str]:
        """List patterns that match nothing, and patterns that leave nothing to factorize."""
        from adaptkit.surgery import find_modules, unmatched

        problems = super().check(model)
        problems += [
            f"{self.name}: {pattern!r} matches no module of {type(model).__name__}"
            for pattern in unmatched(model, (*self.targets, *self.ignore))
        ]
        found = find_modules(model, self.targets, self.ignore).values()
        if problems or any(self.scheme(module) is not None for module in found):
            return problems
        return [f"{self.name}: targets and ignore leave no layer of {type(model).__name__} to factorize"]

    def scheme(self, module: nn.Module) -> Scheme | str | None:
        """Say how a layer is taken apart, or why it must stay; None for modules that are no such layers."""
        raise TypeError(f"{type(self).__name__} defines no scheme()")

    def schemes(self, model: nn.Module, schemes: dict[str, Scheme], context: Context) -> dict[str, Scheme]:
        """Give the schemes of the layers what they must know of the model and the data."""
        del model, context
        return schemes

    def whitenings(self, model: nn.Module, layers: Iterable[str], context: Context) -> dict[str, tuple[Tensor, Tensor]]:
        """Return for the layers whose inputs are not weighed alike the root of their second moment and its inverse."""
        del model, layers, context
        return {}

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Replace layers in place, and renew the statistics of normalizations where there is calibration data.

        Raises:
            TargetError: There is no layer to factorize, or the smallest ranks cost more than the budget.
            DataError: Calibration data is needed, and there is none.
        """
        from adaptkit.factorization.replace import factorize
        from adaptkit.statistics import renew_statistics

        model = factorize(self, model, context)
        renew_statistics(model, context)
        return model


class WeightedFactorization(Factorization):
    """A factorization that may weigh the error of a weight by what the layer is given."""

    weighting: Literal["none", "activations"] = Field(
        "none",
        description="activations: minimize the error of the outputs on calibration data, E‖(W − W′) x‖², instead of "
        "‖W − W′‖²; pixels under a kernel count as independent.",
    )
    samples: PositiveInt = Field(256, description="Calibration samples for `weighting: activations`.")

    def whitenings(self, model: nn.Module, layers: Iterable[str], context: Context) -> dict[str, tuple[Tensor, Tensor]]:
        """Run the calibration samples where they are asked for."""
        from adaptkit.factorization.moments import LARGEST, input_moments, whitening

        if self.weighting == "none":
            return {}
        if context.calibration is None:
            raise DataError(f"{self.name}: weighting: activations needs calibration data; give some, or use none")
        widths = {name: model.get_submodule(name).get_parameter("weight").shape[1] for name in layers}
        large = [name for name, width in widths.items() if width > LARGEST]
        if large:
            context.notes.append(f"{self.name}: not weighted, over {LARGEST} inputs: {', '.join(large)}")
        moments = input_moments(model, [n for n in widths if n not in large], context.calibration, self.samples)
        return {name: whitening(moment) for name, moment in moments.items()}
