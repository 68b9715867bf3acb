"""Accuracy of an ONNX file."""

from pathlib import Path

import numpy as np

from adaptkit.loading.batches import Batches
from adaptkit.runtime.model import AdaptedModel


def file_accuracy(path: Path, batches: Batches) -> float:
    """Measure the top-1 accuracy of an ONNX file over one pass of the batches, on a real session.

    accuracy = (1/n) Σᵢ [argmax f(xᵢ) = yᵢ]

    Args:
        path: The file.
        batches: Normalized inputs and labels; a file that normalizes in its graph gets the pixels back.

    Raises:
        DataError: There is not one sample.
    """
    model = AdaptedModel.load(path)
    right = total = 0
    for x, y in batches:
        logits = model.predict(model.expected_input(x.numpy()))
        right += int(np.sum(logits.argmax(axis=1) == y.numpy()))
        total += len(y)
    return right / total
