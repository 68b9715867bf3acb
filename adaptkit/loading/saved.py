"""A compressed model on disk: structure.json and model.safetensors, without pickle."""

import json
from collections.abc import Callable
from pathlib import Path

import safetensors
import safetensors.torch
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.files import write_atomically
from adaptkit.loading.packed import pack, unpack
from adaptkit.pruning.masks import marked
from adaptkit.quantization.plan import QuantizationPlan
from adaptkit.quantization.simulate import QuantizedModel
from adaptkit.surgery import as_structure, describe, rebuild

STRUCTURE = "structure.json"
WEIGHTS = "model.safetensors"


def float_model(model: nn.Module) -> nn.Module:
    """Return the model that holds the float weights: what a QuantizedModel was made of, else the model itself."""
    return model.model if isinstance(model, QuantizedModel) else model


def save(model: nn.Module, original: nn.Module, folder: Path) -> None:
    """Write what a compressed model is made of, so that `load` can make it again.

    Args:
        model: The compressed model.
        original: The model as its own builder makes it, of any weights.
        folder: An existing folder; gets structure.json (what was replaced, with which sizes) and model.safetensors.

    Raises:
        ModelError: The model holds a module that cannot be rebuilt from a description.
        RunFolderError: The files cannot be written.
    """
    inner = float_model(model)
    structure = describe(inner, original)
    if isinstance(model, QuantizedModel):
        structure["quantization"] = json.loads(model.plan.to_json())
    state = {name: tensor.detach().clone().contiguous() for name, tensor in inner.state_dict().items()}
    write_atomically(folder / WEIGHTS, safetensors.torch.save(pack(state, marked(inner))))
    write_atomically(folder / STRUCTURE, json.dumps(structure, indent=1, sort_keys=True) + "\n")


def load(build: Callable[[], nn.Module], folder: str | Path) -> nn.Module:
    """Load a compressed model onto your own, unmodified class; it can be trained again.

    Args:
        build: Makes the model that was compressed, of any weights: your class, or a function without arguments.
        folder: A run folder, or one of its steps.

    Returns:
        The compressed model in evaluation mode; after a quantization a QuantizedModel, whose `.model` is the float one.

    Raises:
        ModelError: The folder holds no such files, or they were made from another model.
    """
    folder = Path(folder)
    for name in (STRUCTURE, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} holds no {name}: pass a folder that adaptkit compress has written")
    try:
        structure = as_structure(json.loads((folder / STRUCTURE).read_text(encoding="utf-8")))
        state = safetensors.torch.load_file(folder / WEIGHTS)
    except (OSError, RecursionError, ValueError, safetensors.SafetensorError) as error:
        raise ModelError(f"{folder}: {STRUCTURE} or {WEIGHTS} is damaged ({error}); run the recipe again") from error
    model = rebuild(build(), structure)
    try:
        model.load_state_dict(unpack(state, {name: tensor.shape for name, tensor in model.state_dict().items()}))
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder} was made from another model than {type(model).__name__}; "
            f"pass the builder of the model that was compressed.\n{error}"
        ) from error
    model.eval()
    if "quantization" in structure:
        return QuantizedModel(model, QuantizationPlan.from_json(json.dumps(structure["quantization"]))).eval()
    return model
