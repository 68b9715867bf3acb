"""What a killed fit needs to go on: one file in the workspace, replaced as a whole."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adaptkit.errors import RunFolderError
from adaptkit.files import write_atomically

CHECKPOINT = "fit.pt"


def state_sha256(model: nn.Module) -> str:
    """Hash names, shapes, types and values of a model's state.

    Example:
        >>> state_sha256(nn.Linear(2, 2)) == state_sha256(nn.Linear(2, 2))
        False
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(array.shape)} {array.dtype}\n".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write_checkpoint(workspace: Path, key: str, state: dict[str, Any]) -> None:
    """Replace the checkpoint; a killed process leaves the old one or the new one.

    Args:
        workspace: The folder, which is made where it is absent.
        key: What the fit is, so that no other fit takes the checkpoint up.
        state: Tensors and plain values.

    Raises:
        RunFolderError: The disk is full, or the folder cannot be written; the old checkpoint is intact.
    """
    try:
        workspace.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot make the folder {workspace}: {error.strerror}") from error
    buffer = io.BytesIO()
    torch.save({"key": key, **state}, buffer)
    write_atomically(workspace / CHECKPOINT, buffer.getvalue())


def read_checkpoint(workspace: Path, key: str) -> dict[str, Any] | None:
    """Read the checkpoint of this fit; None where there is none.

    Args:
        workspace: The folder.
        key: What the fit is.

    Raises:
        RunFolderError: The file is broken, or another fit wrote it.
    """
    path = workspace / CHECKPOINT
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch answers a broken file with errors of many kinds
        raise RunFolderError(f"{path} is broken; delete it to train from the start") from error
    if state.get("key") != key:
        raise RunFolderError(
            f"{path} belongs to another fit (another model, number of batches, settings, length or seed); "
            "give another workspace, or delete the file"
        )
    return state
