"""What the sections of a recipe may say: the keys, their types, their defaults. No torch in here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt, model_validator

MOST_ENTRIES = 10**7
"""Of a cache: room for all of them is made when it is opened."""

# The `format` of a key in the JSON schema; the recipe reader looks whether such values exist, and makes paths absolute.
ZOO_NAME: dict[str, JsonValue] = {"format": "zoo-name"}
FILE: dict[str, JsonValue] = {"format": "file-path"}
FILE_OR_FOLDER: dict[str, JsonValue] = {"format": "file-or-directory-path"}
WRITABLE_FOLDER: dict[str, JsonValue] = {"format": "writable-directory-path"}
FILE_OR_NAME: dict[str, JsonValue] = {"format": "file-path-or-name"}


class Section(BaseModel):
    """A section of a recipe: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants")


def _exactly_one(section: Section, keys: tuple[str, ...]) -> None:
    given = [key for key in keys if getattr(section, key) not in (None, False)]
    if len(given) != 1:
        found = "none" if not given else " and ".join(given)
        raise ValueError(f"give exactly one of {', '.join(keys)}; found {found}")


class ModelSpec(Section):
    """Where the trained model comes from: exactly one of `zoo`, `torchvision`, `python`."""

    zoo: str | None = Field(None, description="A name in the zoo, such as resnet56_cifar.", json_schema_extra=ZOO_NAME)
    torchvision: str | None = Field(None, description="A torchvision classification model, such as resnet18.")
    python: str | None = Field(None, description="module:function that returns the model.")
    weights: str | None = Field(
        None,
        description="A .safetensors or .pt file, or the name of torchvision weights.",
        json_schema_extra=FILE_OR_NAME,
    )
    args: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments for the builder.")

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        _exactly_one(self, ("zoo", "torchvision", "python"))
        return self


class Normalization(Section):
    """Per-channel mean and standard deviation of images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _same_length(self) -> Normalization:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels, std has {len(self.std)}")
        return self


class DataSpec(Section):
    """Where the data comes from (exactly one source), how it is split, and how it is fed."""

    digits: bool = Field(False, description="The 8 × 8 digits that come with scikit-learn.")
    npz: str | None = Field(
        None,
        description="A .npz file with x_train, y_train, x_test, y_test (or x and y).",
        json_schema_extra=FILE,
    )
    imagefolder: str | None = Field(
        None, description="A folder of class folders, or a zip of one.", json_schema_extra=FILE_OR_FOLDER
    )
    torchvision: str | None = Field(None, description="A torchvision data set, such as FashionMNIST.")
    python: str | None = Field(None, description="module:function that returns a dict of arrays as npz has them.")
    root: str | None = Field(None, description="Folder of the torchvision data set.", json_schema_extra=WRITABLE_FOLDER)
    download: bool = Field(False, description="Let torchvision download its data set.")
    args: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments for the python function.")
    size: PositiveInt | None = Field(None, description="Resize images to size × size pixels.")
    normalize: Literal["imagenet", "none"] | Normalization = Field("none", description="Applied to pixels in [0, 1].")
    augment: tuple[Literal["pad_crop", "flip", "resized_crop"], ...] = Field(
        (), description="Random changes of training images."
    )
    validation: Annotated[float, Field(gt=0)] = Field(
        0.1, description="Images (or share below 1) of train held out for validation."
    )
    calibration: Annotated[float, Field(gt=0)] = Field(
        512, description="Images (or share below 1) of train held out for calibration."
    )
    test: Annotated[float, Field(gt=0)] = Field(
        0.2, description="Images (or share below 1) for test, where the source has no test split."
    )
    batch_size: PositiveInt = Field(128, description="Samples in a training batch.")

    @model_validator(mode="after")
    def _one_source(self) -> DataSpec:
        _exactly_one(self, ("digits", "npz", "imagefolder", "torchvision", "python"))
        if self.size is not None and (self.npz is not None or self.python is not None):
            raise ValueError("size is for images; arrays of npz and python are taken as they are: scale them yourself")
        return self


class ExportSpec(Section):
    """How the ONNX file is written and how closely it must agree with PyTorch."""

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    single_file: bool = Field(True, description="Keep the weights inside the .onnx file.")
    normalize_in_graph: bool = Field(False, description="Put the input normalization into the graph.")
    tolerance: Annotated[float, Field(gt=0)] = Field(
        1e-3, description="Largest relative error of a float export, at any layer."
    )
    min_agreement: Annotated[float, Field(ge=0, le=1)] = Field(
        0.98,
        description="Smallest share of test samples with the same top-1 class in the file and in PyTorch; of a number, "
        "with one within a twentieth of the standard deviation.",
    )


class ProfileSpec(Section):
    """What is measured: each pair of thread count and batch size, side by side with the baseline."""

    threads: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1,)
    batch_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1,)
    warmup: PositiveInt = Field(20, description="Runs before the first timed one.")
    repeats: PositiveInt = Field(200, description="Timed runs of each file, alternating with the baseline.")
    seconds: Annotated[float, Field(gt=0)] = Field(5.0, description="Time limit of each pair of files.")
    epr_alpha: Annotated[float, Field(gt=0)] = Field(1.0, description="The exponent of EPR = error^alpha × energy.")


class GateSpec(Section):
    """What the result must reach; a failed gate ends the run with exit code 3, everything written."""

    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Test accuracy lost, as a share: 0.01 is one point."
    )
    max_r2_drop: Annotated[float, Field(ge=0)] | None = Field(
        None, description="R² lost over the test split, where targets are numbers: 0.01 is one point."
    )
    min_speedup: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="ONNX Runtime latency ratio at the first thread count and batch size; of means where conditional.",
    )
    max_bytes: PositiveInt | None = Field(None, description="Size of the file, or of all files where conditional.")
    max_latency_ms: Annotated[float, Field(gt=0)] | None = Field(
        None, description="p50 at the first thread count and batch size; the mean where conditional."
    )
