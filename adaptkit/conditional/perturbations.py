"""Small changes of inputs, as a server sees them when the same thing comes again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Perturbations(BaseModel):
    """What happens to an input between one time and the next.

    Example:
        >>> import numpy as np, torch
        >>> Perturbations(noise=0.1).apply(torch.zeros(2, 3, 8, 8), np.random.default_rng(0)).shape
        torch.Size([2, 3, 8, 8])
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    crop: Annotated[float, Field(ge=0, le=0.5)] = 0.0625
    """How far an image is shifted at most, up or down and left or right, as a share of its side; edges are repeated."""
    flip: bool = True
    """Whether it is mirrored left to right, half of the times."""
    noise: Annotated[float, Field(ge=0)] = 0.02
    """Deviation of normal noise on every value, in units of the model's (normalized) input."""

    def apply(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Change each sample of a batch in its own way.

        Args:
            x: Normalized inputs; shifts and mirrors are for N × C × H × W. Whole numbers, as those of tokens, stay.
            rng: Source of all choices.
        """
        import torch

        if not x.is_floating_point():
            return x
        if x.ndim == 4:
            x = self._shifted(x, rng)
            if self.flip:
                chosen = torch.from_numpy(rng.random(len(x)) < 0.5)
                x = torch.where(chosen[:, None, None, None], x.flip(3), x)
        if self.noise:
            x = x + self.noise * torch.from_numpy(rng.standard_normal(tuple(x.shape))).to(x.dtype)
        return x

    def _shifted(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        import torch

        count, _, height, width = x.shape
        down, right = round(self.crop * height), round(self.crop * width)
        rows = _window(height, torch.from_numpy(rng.integers(-down, down + 1, count)))
        columns = _window(width, torch.from_numpy(rng.integers(-right, right + 1, count)))
        samples = torch.arange(count)[:, None, None]
        return x.permute(0, 2, 3, 1)[samples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _window(size: int, offsets: Tensor) -> Tensor:
    import torch

    return (torch.arange(size) + offsets[:, None]).clamp(0, size - 1)
