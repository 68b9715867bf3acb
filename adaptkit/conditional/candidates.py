"""Further models that a conditional entry names, besides the one it is put around."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from adaptkit.specs import FILE_OR_FOLDER, ModelSpec

if TYPE_CHECKING:
    from adaptkit.conditional.base import Artifact
    from adaptkit.technique import Context


class Candidate(ModelSpec):
    """A model by name as in a recipe's `model`, or one that is finished: the folder of a run, or an ONNX file.

    Example:
        >>> Candidate(zoo="lenet5_digits").folder is None
        True
    """

    folder: str | None = Field(
        None, description="The folder of a finished run, or an ONNX file.", json_schema_extra=FILE_OR_FOLDER
    )

    @model_validator(mode="after")
    def _one_source(self) -> Candidate:
        given = [key for key in ("zoo", "torchvision", "python", "folder") if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"give exactly one of zoo, torchvision, python, folder; found {found}")
        if self.folder is not None and (self.weights is not None or self.args):
            raise ValueError("a finished model has its weights: leave out weights and args beside folder")
        return self

    def artifact(self, context: Context, classes: int, opset: int) -> Artifact:
        """Load the model.

        Args:
            context: Its example inputs are what the model takes.
            classes: Given to builders that ask for them.
            opset: Of the file that is made of a model by name.

        Raises:
            ModelError: It cannot be built, or nothing that runs is in the folder.
        """
        from pathlib import Path

        from adaptkit.conditional.finished import Finished
        from adaptkit.conditional.plain import PlainArtifact
        from adaptkit.loading.models import load_model

        if self.folder is not None:
            return Finished(Path(self.folder))
        return PlainArtifact(load_model(self, classes), context.example_inputs, opset)
