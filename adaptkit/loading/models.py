"""Models: from the zoo, from torchvision or from a function of the user's, with weights from a file."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import pickle
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.loading.python_path import call_named
from adaptkit.specs import ModelSpec

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_LISTED_KEYS = 3


def load_model(spec: ModelSpec, num_classes: int | None = None, folder: Path = Path()) -> nn.Module:
    """Build the model a recipe names, with its weights, in eval mode.

    Args:
        spec: Where it comes from. Without weights a zoo model takes those of the zoo, if there are any; other models
            start from random ones, the same each time.
        num_classes: Given to builders that have such an argument, unless `spec.args` says it or the weights come with
            their classes (zoo, torchvision by name).
        folder: Relative paths start here.

    Raises:
        ModelError: It cannot be built, or the weights do not fit it.

    Example:
        >>> model = load_model(ModelSpec(torchvision="squeezenet1_1"), num_classes=7)
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 7])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if spec.zoo is not None:
            model = _zoo(spec, num_classes, folder)
        elif spec.torchvision is not None:
            model = _torchvision(spec, num_classes, folder)
        else:
            model = _python(spec, folder)
    return model.eval()


def load_weights(model: nn.Module, path: Path) -> None:
    """Copy weights from a file into a model.

    Args:
        model: Takes the weights.
        path: A .safetensors file, or a .pt or .pth file that holds a state_dict, which may stand under a key
            `state_dict` or `model`. Names may begin with `module.`, as DataParallel writes them.

    Raises:
        ModelError: The file is missing or broken, holds pickled objects, or belongs to another architecture.
    """
    given = _read_weights(path)
    if given and all(name.startswith("module.") for name in given):
        given = {name.removeprefix("module."): value for name, value in given.items()}
    own = model.state_dict()
    problems = _differences(own, given)
    if problems:
        raise ModelError(
            f"{path} does not fit the model {type(model).__name__}: {'; '.join(problems)}. "
            "Name the model these weights were trained for"
        )
    model.load_state_dict(given, strict=False)


def _zoo(spec: ModelSpec, num_classes: int | None, folder: Path) -> nn.Module:
    from adaptkit_zoo import index

    builders = index.builders()
    name = str(spec.zoo)
    if name not in builders:
        raise ModelError(f"the zoo has no model {name!r}{_did_you_mean(name, builders)}")
    path = index.weights_path(name) if spec.weights is None else folder / spec.weights
    classes = num_classes if spec.weights is not None or path is None else None
    model = _call(builders[name], spec, _args(builders[name], spec, classes))
    if path is not None:
        load_weights(model, path)
    return model


def _torchvision(spec: ModelSpec, num_classes: int | None, folder: Path) -> nn.Module:
    from torchvision import models

    name = str(spec.torchvision)
    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(f"torchvision has no classification model {name!r}{_did_you_mean(name, known)}")
    builder = models.get_model_builder(name)
    path = None if spec.weights is None else folder / spec.weights
    if path is None or path.exists() or path.suffix:
        model = _call(builder, spec, {"weights": None, **_args(builder, spec, num_classes)})
        if path is not None:
            load_weights(model, path)
        return model
    offered = [weights.name for weights in models.get_model_weights(name)]
    if spec.weights not in offered:
        names = ", ".join(offered)
        raise ModelError(
            f"torchvision's {name} has no weights {spec.weights!r}, only {names}; and there is no such file"
        )
    try:
        return _call(builder, spec, {**spec.args, "weights": spec.weights})
    except (OSError, RuntimeError) as error:
        url = models.get_model_weights(name)[str(spec.weights)].url
        raise ModelError(
            f"cannot get the weights {spec.weights} of {name}: {error}. Download {url} yourself and name the file"
        ) from error


def _python(spec: ModelSpec, folder: Path) -> nn.Module:
    model = call_named(str(spec.python), spec.args, folder, ModelError)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec.python} returned {type(model).__name__}; it must return a torch.nn.Module")
    if spec.weights is not None:
        load_weights(model, folder / spec.weights)
    return model


def _args(builder: Any, spec: ModelSpec, num_classes: int | None) -> dict[str, Any]:
    """Add the number of classes to the arguments where the builder takes one; torchvision's take it as a keyword."""
    parameters = inspect.signature(builder).parameters.values()
    takes = any(p.name == "num_classes" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    if num_classes is None or not takes:
        return spec.args
    return {"num_classes": num_classes, **spec.args}


def _call(builder: Any, spec: ModelSpec, args: dict[str, Any]) -> nn.Module:
    try:
        # torch tells of downloads on stdout, which is for results.
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            # GoogLeNet and Inception announce a change of their initial weights, which is no news to a user here.
            warnings.filterwarnings("ignore", category=FutureWarning, module="torchvision")
            model: nn.Module = builder(**args)
    except (TypeError, ValueError) as error:
        raise ModelError(f"cannot build {spec.zoo or spec.torchvision} with {args}: {error}") from error
    return model


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"there is no weights file {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch answers a broken file with errors of many kinds
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise ModelError(
                f"{path} holds pickled Python objects, which can run any code and are not loaded. "
                "Save the weights alone: torch.save(model.state_dict(), path)"
            ) from error
        raise ModelError(f"{path} is no weights file that torch can read: {_first_line(error)}") from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{path} holds no state_dict (names and tensors): save torch.save(model.state_dict(), path)")
    return dict(content)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is no whole safetensors file: {_first_line(error)}") from error
    return weights


def _differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Say which keys are missing, unexpected or of another shape; counters of batches may be missing."""
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in own]
    shapes = [
        f"{name} ({tuple(value.shape)} in the file, {tuple(own[name].shape)} in the model)"
        for name, value in given.items()
        if name in own and value.shape != own[name].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names]


def _some(names: list[str]) -> str:
    return ", ".join(names[:_LISTED_KEYS]) + (", …" if len(names) > _LISTED_KEYS else "")


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; it has {', '.join(sorted(known))}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
