"""Every bad array has its message."""

import numpy as np
import pytest
import torch

from adaptkit.errors import DataError
from adaptkit.metrics.arrays import finite, labels, numbers, rows, same_length, scores

NAN = torch.tensor([[1.0, float("nan")], [1.0, 2.0], [float("inf"), 0.0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: finite("x", NAN), "x: 2 of 3 samples hold NaN or infinity, first at sample 0; leave them out"),
        (lambda: finite("x", torch.ones(3), 4), "x: 3 samples are too few, give at least 4"),
        (lambda: finite("x", torch.tensor(1.0)), "x: 0 samples are too few"),
        (lambda: finite("x", np.zeros((0, 3))), "x: 0 samples are too few"),
        (lambda: scores("p", torch.ones(3)), r"p: give samples × classes with at least 2 classes; got shape \(3,\)"),
        (lambda: scores("p", torch.ones(3, 1)), r"got shape \(3, 1\)"),
        (lambda: labels("y", torch.ones(3), 3), r"y: give one class number a sample; got float32 of shape \(3,\)"),
        (lambda: labels("y", np.ones((3, 1), int), 3), r"got int64 of shape \(3, 1\)"),
        (lambda: labels("y", np.array([0, 3]), 2, 3), "y: classes go from 0 to 2; sample 1 has 3"),
        (lambda: labels("y", np.array([0, -1]), 2), "y: classes go from 0; sample 1 has -1"),
        (lambda: labels("y", []), "y: 0 samples are too few, give at least 1"),
        (lambda: labels("y", np.ones(2, bool)), r"y: give one class number a sample; got bool of shape \(2,\)"),
        (lambda: numbers("z", np.ones((3, 2))), r"z: give one number a sample, N or N × 1; got shape \(3, 2\)"),
        (lambda: labels("y", np.array([0]), 2), "y: has 1 samples, what belongs to them has 2; give one each"),
        (lambda: same_length("z", 3, 4), "z: has 3 samples"),
    ],
)
def test_bad_arrays(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_good_arrays():
    assert rows("x", np.arange(12, dtype=np.int32).reshape(2, 3, 2)).tolist() == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10, 11],
    ]
    assert rows("x", torch.ones(4, requires_grad=True)).shape == (4, 1)
    assert scores("p", torch.ones(1, 2, dtype=torch.float16)).dtype == np.float64
    assert scores("p", torch.tensor([[0.5, 2.0]], dtype=torch.bfloat16)).tolist() == [[0.5, 2.0]]
    assert labels("y", np.array([2, 0], np.uint8), 2, 3).tolist() == [2, 0]
    assert labels("y", torch.tensor([7])).tolist() == [7]
    assert numbers("z", torch.ones((2, 1), requires_grad=True)).tolist() == [1, 1]
