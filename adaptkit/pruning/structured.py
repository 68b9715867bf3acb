"""Removing whole channels and heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from adaptkit.technique import Context, Form, Technique
from adaptkit.training.settings import FitSettings

if TYPE_CHECKING:
    from torch import nn

Ratio = Annotated[float, Field(gt=0, lt=1)]
_TARGETS = ("macs", "params", "latency")
_DEFAULT_TARGET = ("macs", 0.5)


class StructuredPruning(Technique):
    """Remove whole channels, features and attention heads, so that the model is smaller without any masks.

    The model's own graph says what must go together (residual additions, concatenations, groups, heads); nothing is
    named by hand. Units are ranked by importance, I(u) = sqrt(Σ w²) over all that goes with the unit, divided by the
    mean of its group, unless another measure is asked for, and removed until one cost has fallen to the target: kept
    share of multiply-accumulates (`macs`), of parameters (`params`), or of the time that the model's own layers take
    on ONNX Runtime (`latency`, from a table that is measured as needed). `macs` and `params` are met within 2 %.
    `ranking: isomorphic` compares units only with those of layers of the same structure (attention heads with heads,
    hidden features of an MLP with such), and takes the same share of each kind. `ranking: sensitivity` leaves
    importance to say which units of a group go first, and asks calibration data how many: L(g, n) is the loss with n
    units of group g left, and the group is cut next whose loss rises least for the cost it saves. The loss is measured
    with all other groups whole, and once more with the others cut as was chosen; the better choice counts. That takes
    up to 18 passes over 256 samples for each group. `reconstruct` gives each layer, in the order in which they run, the
    weights of least Σ ‖y − W x‖² + λ ‖W − W₀‖²: y is what it gave before the cut, x what it is given now, W₀ what the
    cut has left. With `sparse_epochs`, group lasso first drives whole units towards zero.

    Sources: Fang et al. 2023, "DepGraph"; Fang et al. 2024, "Isomorphic pruning for vision models"; Li et al. 2017,
    "Pruning filters for efficient convnets" (l1; sensitivity in section 3.2); Liu et al. 2017, "Network slimming"
    (bn_scale); He et al. 2019, "Filter pruning via geometric median" (fpgm); Lee et al. 2021, "Layer-adaptive sparsity
    for the magnitude-based pruning" (lamp); Molchanov et al. 2019, "Importance estimation for neural network pruning"
    (taylor); LeCun et al. 1990, "Optimal brain damage" (obd); Molchanov et al. 2017, "Pruning convolutional neural
    networks for resource efficient inference" (activation); He et al. 2017, "Channel pruning for accelerating very
    deep neural networks" (reconstruct); Wen et al. 2016, "Learning structured sparsity in deep neural networks".

    Raises:
        TargetError: Even the narrowest model that the settings allow costs more than the target.
        ModelError: torch.export cannot capture the model.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 3))
        >>> StructuredPruning(macs=0.5).apply(net, Context(example_inputs=(torch.zeros(1, 3, 8, 8),)))[0]
        Conv2d(3, 16, kernel_size=(3, 3), stride=(1, 1))
    """

    name: ClassVar[str] = "prune.structured"
    refuses: ClassVar[Mapping[Form, str]] = {
        "patterned": "cutting channels would shift the neighbours and rows that the pattern of zeros counts",
        "quantized": "a quantized model has no float layers to cut",
    }

    targets: tuple[str, ...] = Field(("*",), description="Layers whose outputs may be cut: class name, glob or re:….")
    ignore: tuple[str, ...] = Field((), description="Layers whose outputs stay.")
    macs: Ratio | None = Field(None, description="Share of multiply-accumulates to keep; 0.5 where no target is given.")
    params: Ratio | None = Field(None, description="Share of parameters to keep.")
    latency: Ratio | None = Field(None, description="Share of the layers' measured ONNX Runtime time to keep.")
    importance: Literal["group_l2", "l1", "bn_scale", "fpgm", "lamp", "taylor", "obd", "activation", "random"] = Field(
        "group_l2", description="How units are scored; taylor, obd and activation need calibration data."
    )
    ranking: Literal["global", "isomorphic", "per_layer", "sensitivity"] = Field(
        "global",
        description="Remove what matters least anywhere, among layers of the same structure, or in every layer; or "
        "where the loss on calibration data rises least for what is saved.",
    )
    round_to: Annotated[int, Field(ge=1)] = Field(
        8, description="Channels that stay are a multiple of this, or of a quarter of the layer where that is less."
    )
    min_channels: Annotated[int, Field(ge=1)] = Field(4, description="Channels that stay at least, where there are.")
    reconstruct: bool = Field(
        False,
        description="Refit layers after the cut by least squares to what they gave before, on calibration data; for "
        "models that are not trained afterwards.",
    )
    iterations: Annotated[int, Field(ge=1)] = Field(1, description="Steps in which the target is approached.")
    sparse_epochs: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Epochs of training with group lasso before the first cut; needs training data."
    )
    sparse_strength: Annotated[float, Field(gt=0)] = Field(
        1e-4, description="Factor of the group lasso, λ in L + λ Σ √d ‖u‖₂ over all units u of d parameters."
    )
    recovery_epochs: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Epochs of training in total, spread over the iterations; needs training data."
    )
    fit: FitSettings = Field(default_factory=FitSettings, description="How sparse training and recovery train.")

    @model_validator(mode="after")
    def _one_target(self) -> StructuredPruning:
        given = [target for target in _TARGETS if getattr(self, target) is not None]
        if len(given) > 1:
            raise ValueError(f"give exactly one of macs, params, latency; found {' and '.join(given)}")
        return self

    def target(self) -> tuple[str, float]:
        """Return which cost is to fall, and to what share.

        Example:
            >>> StructuredPruning(params=0.3).target()
            ('params', 0.3)
        """
        given = ((kind, getattr(self, kind)) for kind in _TARGETS)
        return next(((kind, share) for kind, share in given if share is not None), _DEFAULT_TARGET)

    def check(self, model: nn.Module) -> list[str]:
        """List patterns that match nothing, and targets that leave nothing to cut."""
        from adaptkit.surgery import find_modules, unmatched

        problems = super().check(model)
        problems += [f"{pattern!r} matches no module of the model" for pattern in unmatched(model, self.targets)]
        problems += [f"ignore: {pattern!r} matches no module of the model" for pattern in unmatched(model, self.ignore)]
        if not problems and not find_modules(model, self.targets, self.ignore):
            problems.append("targets and ignore together leave no module")
        return problems

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """Cut the model in place, in `iterations` steps with recovery between them, or new statistics at the end."""
        from adaptkit.pruning.iterate import prune
        from adaptkit.statistics import renew_statistics

        model = prune(self, model, context)
        if self.recovery_epochs == 0:
            renew_statistics(model, context)
        return model
