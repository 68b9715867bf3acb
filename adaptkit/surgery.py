"""Finding and replacing modules, and a model's structure as JSON: the only surgery there is."""

import copy
import importlib
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError

Structure = dict[str, Any]

_VERSION = 1
_PLAIN = (bool, int, float, str, type(None))
_TRUSTED = ("torch.nn.", "adaptkit.")
_SIZES = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
_OF_TORCH = ("training", "_is_full_backward_hook", "_compiled_call_impl")
"""Plain attributes of every module that say nothing of its structure; others may hold sizes, private ones too."""
_KEPT_ARGUMENTS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: _SIZES,
    nn.Linear: ("in_features", "out_features"),
}


def find_modules(model: nn.Module, targets: Sequence[str], ignore: Sequence[str] = ()) -> dict[str, nn.Module]:
    """Find the modules that match a target and no ignore pattern, in the order of `named_modules()`.

    A pattern is a class name (`Conv2d`), a glob over module names (`layer1.*`; `*` matches dots too), or `re:` and a
    regular expression that must match the whole name. The model itself has no name and never matches.

    Args:
        model: Where to look.
        targets: Patterns of which one must match.
        ignore: Patterns of which none may match.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Linear(2, 2))
        >>> list(find_modules(net, ["Conv2d", "re:2"]))
        ['0', '2']
        >>> list(find_modules(net, ["*"], ignore=["ReLU"]))
        ['0', '2']
    """
    return {
        name: module
        for name, module in model.named_modules()
        if name
        and any(_matches(pattern, name, module) for pattern in targets)
        and not any(_matches(pattern, name, module) for pattern in ignore)
    }


def unmatched(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """List the patterns that match nothing in the model.

    Example:
        >>> unmatched(nn.Sequential(nn.ReLU()), ["ReLU", "conv*"])
        ['conv*']
    """
    return [pattern for pattern in patterns if not find_modules(model, [pattern])]


def _matches(pattern: str, name: str, module: nn.Module) -> bool:
    if pattern.startswith("re:"):
        return re.fullmatch(pattern[3:], name) is not None
    return pattern == type(module).__name__ or fnmatchcase(name, pattern)


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` in the place of the module called `name`; it takes over training or evaluation mode.

    Example:
        >>> net = nn.Sequential(nn.ReLU())
        >>> replace_module(net, "0", nn.Identity())
        >>> net
        Sequential(
          (0): Identity()
        )
    """
    new.train(model.get_submodule(name).training)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def describe(model: nn.Module, original: nn.Module) -> Structure:
    """Say how `model` differs from `original` in structure, as plain JSON values.

    Recorded are replaced modules (class and settings), removed modules, plain attributes that changed (`out_channels`,
    a user's own `self.dim`) and tensors that changed shape, appeared or went. Values of tensors are not.

    Args:
        model: What surgery has made of it.
        original: As its own builder makes it.

    Raises:
        ModelError: A new module is neither of torch.nn nor of adaptkit, so it could not be rebuilt.
    """
    structure: Structure = {"version": _VERSION, "replaced": {}, "removed": [], "attributes": {}, "tensors": {}}
    _describe_module("", model, original, structure)
    return structure


def as_structure(found: Any) -> Structure:
    """Check that something read from a file is a description this version knows.

    Raises:
        ModelError: It is not.
    """
    version = found.get("version") if isinstance(found, dict) else None
    if version != _VERSION:
        raise ModelError(f"structure.json is of version {version!r}, this adaptkit reads version {_VERSION}")
    kinds = {"replaced": dict, "removed": list, "attributes": dict, "tensors": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(found.get(name), kind)]
    if wrong:
        raise ModelError(f"structure.json is damaged at {', '.join(wrong)}: run the recipe again")
    structure: Structure = found
    return structure


def rebuild(model: nn.Module, structure: Structure) -> nn.Module:
    """Give a freshly built model the structure that `describe` recorded; its weights are then to be loaded.

    Raises:
        ModelError: The structure names a module that the model does not have, or a class that is not trusted, or it is
            damaged.
    """
    try:
        for name in structure["removed"]:
            _delete(model, name)
        for name, recipe in structure["replaced"].items():
            replacement = _build(recipe)
            if not name:
                return replacement
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, replacement)
        for name, attributes in structure["attributes"].items():
            module = model.get_submodule(name)
            for key, value in attributes.items():
                setattr(module, key, _from_plain(value))
        shared: dict[int, tuple[Tensor, nn.Parameter]] = {}
        for name, entry in structure["tensors"].items():
            _resize(model, name, entry, shared)
    except (ImportError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"structure.json is damaged, or of another version of adaptkit ({_named(error)}): run the recipe again"
        ) from error
    except AttributeError as error:
        raise ModelError(
            f"this run folder was made from another model: {error}. Pass the builder of the model that was compressed"
        ) from error
    return model


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _describe_module(name: str, module: nn.Module, original: nn.Module | None, structure: Structure) -> None:
    if original is None or type(module) is not type(original):
        structure["replaced"][name] = _class_recipe(name, module)
        return
    changed = {
        key: _to_plain(value)
        for key, value in _plain_attributes(module)
        if key not in vars(original) or vars(original)[key] != value
    }
    if changed:
        structure["attributes"][name] = changed
    _describe_tensors(name, module, original, structure)
    children = dict(module.named_children())
    originals = dict(original.named_children())
    structure["removed"] += [_join(name, child) for child in originals if child not in children]
    for child, submodule in children.items():
        _describe_module(_join(name, child), submodule, originals.get(child), structure)


def _describe_tensors(name: str, module: nn.Module, original: nn.Module, structure: Structure) -> None:
    for kind in ("_parameters", "_buffers"):
        now: dict[str, Tensor | None] = getattr(module, kind)
        before: dict[str, Tensor | None] = getattr(original, kind)
        for key in {**before, **now}:
            new, old = now.get(key), before.get(key)
            if _form(new) != _form(old) or (key in now) != (key in before):
                shape = None if new is None else list(new.shape)
                entry: Structure = {"shape": shape, "buffer": kind == "_buffers"}
                if new is not None:
                    entry["dtype"] = str(new.dtype).removeprefix("torch.")
                    entry["persistent"] = key not in module._non_persistent_buffers_set
                structure["tensors"][_join(name, key)] = entry


def _form(tensor: Tensor | None) -> tuple[list[int], torch.dtype] | None:
    return None if tensor is None else (list(tensor.shape), tensor.dtype)


def _class_recipe(name: str, module: nn.Module) -> Structure:
    path = f"{type(module).__module__}.{type(module).__qualname__}"
    if path.startswith("torch.nn.modules."):
        path = f"torch.nn.{type(module).__qualname__}"
    if not path.startswith(_TRUSTED):
        raise ModelError(f"{name}: a {path} was put in, which cannot be rebuilt from its description")
    arguments = _arguments(module)
    bare = importlib.import_module(path.rpartition(".")[0]).__dict__[path.rpartition(".")[2]](**arguments)
    return {"class": path, "arguments": arguments, "inside": describe(module, bare)}


def _arguments(module: nn.Module) -> dict[str, Any]:
    """Give the constructor arguments of a module: its own word, or what a layer of torch.nn keeps of them."""
    if type(module) in _KEPT_ARGUMENTS:
        kept = {key: getattr(module, key) for key in _KEPT_ARGUMENTS[type(module)]}
        return {**kept, "bias": module.bias is not None}
    arguments: dict[str, Any] = getattr(module, "arguments", dict)()
    return arguments


def _build(recipe: Structure) -> nn.Module:
    path: str = recipe["class"]
    if not path.startswith(_TRUSTED):
        raise ModelError(f"structure.json names {path}, which is neither of torch.nn nor of adaptkit: not loaded")
    folder, _, name = path.rpartition(".")
    made = getattr(importlib.import_module(folder), name)
    if not (isinstance(made, type) and issubclass(made, nn.Module)):
        raise ModelError(f"structure.json names {path}, which is not a module: not loaded")
    return rebuild(made(**recipe["arguments"]), recipe["inside"])


def _plain_attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for key, value in vars(module).items():
        if key not in _OF_TORCH and _is_plain(value):
            yield key, value


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _PLAIN)


def _to_plain(value: Any) -> Any:
    """Tuples must come back as tuples (a convolution's padding), which JSON alone would not say."""
    if isinstance(value, tuple):
        return {"tuple": [_to_plain(item) for item in value]}
    return [_to_plain(item) for item in value] if isinstance(value, list) else copy.deepcopy(value)


def _from_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(_from_plain(item) for item in value["tuple"])
    return [_from_plain(item) for item in value] if isinstance(value, list) else value


def _resize(model: nn.Module, name: str, entry: Structure, shared: dict[int, tuple[Tensor, nn.Parameter]]) -> None:
    """Put an empty tensor in the place of one; what was one parameter under two names stays one."""
    parent, _, key = name.rpartition(".")
    module = model.get_submodule(parent)
    if entry["shape"] is None:
        setattr(module, key, None)
        return
    tensor = torch.empty(entry["shape"], dtype=getattr(torch, entry["dtype"]))
    if entry["buffer"]:
        module.register_buffer(key, tensor, persistent=entry["persistent"])
        return
    new = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
    old = getattr(module, key, None)
    if isinstance(old, Tensor):
        _, kept = shared.setdefault(id(old), (old, new))
        new = kept if _form(kept) == _form(new) else new
    setattr(module, key, new)


def _delete(model: nn.Module, name: str) -> None:
    parent, _, child = name.rpartition(".")
    delattr(model.get_submodule(parent), child)


def _join(name: str, child: str) -> str:
    return f"{name}.{child}" if name else child
