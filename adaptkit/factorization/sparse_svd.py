"""factorize.sparse_svd: a layer becomes two, with zeros where neurons matter little."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt

from adaptkit.errors import DataError
from adaptkit.factorization.base import Factorization, Share
from adaptkit.technique import Context, Form

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.factorization.neurons import Scores
    from adaptkit.factorization.schemes import Scheme


class SparseSvdFactorization(Factorization):
    """Replace linear layers and convolutions by two of rank r, and keep a lower rank for unimportant neurons.

    W ≈ L R of rank r as in `factorize.svd`. Outputs and inputs of the layer are ranked; the least important share
    (`unimportant`) of each keeps only the first `kept_rank` · r ranks: the rest of its row of L, or column of R, is
    zero (Swaminathan et al. 2020, "Sparse low rank factorization for deep neural network compression", section 3). The
    paper does so for linear layers; a convolution is taken as out × (in · height · width), a neuron being a channel.

    ONNX Runtime multiplies by these zeros as by any numbers: what gets faster is what rank r alone makes faster, and
    what the zeros save is bytes, where the file is stored sparse or packed. The zeros stay when the model is trained.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from adaptkit.technique import Context
        >>> net = nn.Sequential(nn.Linear(256, 128))
        >>> settings = SparseSvdFactorization(rank=16, undo_slower=False)
        >>> first, second = settings.apply(net, Context(example_inputs=(torch.zeros(1, 256),)))[0]
        >>> int((first.weight == 0).sum()), int((second.weight == 0).sum())
        (1024, 512)
    """

    name: ClassVar[str] = "factorize.sparse_svd"
    leaves: ClassVar[frozenset[Form]] = frozenset({"sparse"})

    unimportant: Share = Field(0.5, description="Share of the outputs and of the inputs that get a lower rank.")
    kept_rank: Share = Field(0.5, description="Share of the rank that these keep.")
    importance: Literal["weight", "activation", "loss"] = Field(
        "weight",
        description="Neurons are ranked by Σ |w|, by Σ |x| on calibration samples, or by the change of the loss to "
        "first order if they were zero.",
    )
    samples: PositiveInt = Field(256, description="Calibration samples for `importance: activation` and `loss`.")

    def scheme(self, module: nn.Module) -> Scheme | str | None:
        """Take linear layers and convolutions."""
        from torch import nn

        from adaptkit.factorization.schemes import Channel

        return Channel() if isinstance(module, (nn.Conv2d, nn.Linear)) else None

    def schemes(self, model: nn.Module, schemes: dict[str, Scheme], context: Context) -> dict[str, Scheme]:
        """Rank the neurons of every layer."""
        from adaptkit.factorization.neurons import least_important
        from adaptkit.factorization.schemes import SparseChannel

        scores = self._scores(model, list(schemes), context)
        unimportant = {
            name: (least_important(outputs, self.unimportant), least_important(inputs, self.unimportant))
            for name, (outputs, inputs) in scores.items()
        }
        return {name: SparseChannel(*unimportant[name], self.kept_rank) for name in schemes}

    def _scores(self, model: nn.Module, names: list[str], context: Context) -> dict[str, Scores]:
        from adaptkit.factorization.neurons import by_activation, by_loss, by_weight
        from adaptkit.training.losses import target_loss

        if self.importance == "weight":
            return {name: by_weight(model.get_submodule(name).get_parameter("weight").detach()) for name in names}
        if context.calibration is None:
            raise DataError(
                f"{self.name}: importance: {self.importance} needs calibration data; give some, or use weight"
            )
        if self.importance == "activation":
            return by_activation(model, names, context.calibration, self.samples)
        return by_loss(model, names, context.calibration, self.samples, context.loss or target_loss)
