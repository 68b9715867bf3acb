"""Whether the zeros that were promised are in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import numpy_helper
from torch import nn

from adaptkit.export.files import read_model
from adaptkit.pruning.masks import marked


def sparse_notes(model: nn.Module, path: Path) -> list[str]:
    """Count the zeros in the weights of a file, and compare them with those of the sparse weights of its model.

    Args:
        model: The float model that was exported; it says which of its weights are sparse.
        path: The ONNX file.

    Returns:
        One sentence; none where no weight is sparse.
    """
    sparse = {id(weight): weight for weight in marked(model).values()}.values()
    promised = sum(int((weight == 0).sum()) for weight in sparse)
    if not promised:
        return []
    size = sum(weight.numel() for weight in sparse)
    found = _zeros(path)
    kept = "all of them are there" if found >= promised else f"ONLY {found:,} are there"
    return [
        f"{promised:,} of {size:,} weights of the sparse layers were set to zero for good; {kept} in {path.name}. "
        "ONNX Runtime multiplies them like any other number: they save bytes, not time"
    ]


def _zeros(path: Path) -> int:
    """Count the zeros of all constants with at least two dimensions."""
    values = (numpy_helper.to_array(tensor) for tensor in read_model(path).graph.initializer if len(tensor.dims) > 1)
    return sum(value.size - int(np.count_nonzero(value)) for value in values)
