"""The settings of the one training loop, as recipes write them. No torch in here."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class FitSettings(BaseModel):
    """How `fit` trains; the length in epochs is the caller's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = Field(0.05, description="The highest learning rate of the schedule.")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Nesterov momentum of sgd.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(5e-4, description="Not applied to biases and norm parameters.")
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gradient_clip: Annotated[float, Field(gt=0)] | None = Field(None, description="Largest norm of the gradient.")
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="Decay of the averaged weights.")
    channels_last: bool = True
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="What products are computed in; bfloat16 is faster on processors that have it. Weights stay "
        "float32, and so does the validation.",
    )
    checkpoint_seconds: Annotated[float, Field(ge=0)] = Field(
        30.0, description="Time between checkpoints inside an epoch, where a workspace is given."
    )
