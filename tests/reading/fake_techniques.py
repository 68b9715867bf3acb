"""Two small techniques, so that the reader's tests do not change with the real ones."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from adaptkit.specs import FILE, ModelSpec
from adaptkit.technique import Technique
from adaptkit.training.settings import FitSettings

Share = Annotated[float, Field(gt=0, lt=1)]


class Prune(Technique):
    """Remove channels. The rest stays.

    More about it.
    """

    name: ClassVar[str] = "prune.fake"
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})
    macs: Share | None = Field(None, description="Share of MACs to keep.")
    latency: Share | None = None
    importance: Literal["l1", "taylor"] = "l1"
    targets: tuple[str, ...] = ("*",)
    fit: FitSettings = Field(FitSettings(), description="Training between steps.")
    table: str | None = Field(None, json_schema_extra=FILE)

    @model_validator(mode="after")
    def _one_target(self):
        if self.macs is not None and self.latency is not None:
            raise ValueError("give one of macs and latency, not both")
        return self


class Distill(Technique):
    """Learn from a teacher."""

    name: ClassVar[str] = "distill.fake"
    epochs: float
    teacher: ModelSpec | None = None
    width: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"


FAKES = {technique.name: technique for technique in (Prune, Distill)}
