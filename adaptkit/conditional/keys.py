"""What makes a key of an input: a few numbers that stay about the same when the same thing comes again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

from adaptkit.errors import DataError

BITS = 64
_FEWEST_BITS = 16
_RIDGE = 0.01
_TINY = 1e-12
_IR_VERSION = 10


@dataclass(frozen=True)
class KeyMaker:
    """What makes a key of an input: pool, project, and scale to length 1; a hash keeps the signs only.

    Args:
        cells: Pooled images have about so many rows and columns; other inputs are taken as they are.
        mean: Of pooled inputs.
        projection: Pooled values × dimensions.
        unit: Whether keys are scaled to length 1; one of zeros stays.
    """

    cells: int
    mean: Tensor
    projection: Tensor
    unit: bool = True

    def onnx(self, sample_shape: tuple[int, ...], opset: int = 20) -> onnx.ModelProto:
        """Write it as a graph from `input`, N × the shape of a sample, to `key`, N × dimensions.

        Example:
            >>> import numpy as np
            >>> from adaptkit.runtime.session import open_session
            >>> proto = KeyMaker(2, torch.zeros(4), torch.eye(4)).onnx((1, 8, 8))
            >>> x = np.ones((3, 1, 8, 8), np.float32)
            >>> open_session(proto.SerializeToString()).run(None, {"input": x})[0][0].tolist()
            [0.5, 0.5, 0.5, 0.5]
        """
        nodes, last = [], "input"
        if len(sample_shape) == 3 and max(pool := _window(sample_shape, self.cells)) > 1:
            nodes.append(helper.make_node("AveragePool", [last], ["pooled"], kernel_shape=pool, strides=pool))
            last = "pooled"
        nodes += [
            helper.make_node("Flatten", [last], ["flat"]),
            helper.make_node("Gemm", ["flat", "projection", "offset"], ["projected" if self.unit else "key"]),
        ]
        constants = {"projection": self.projection, "offset": -(self.mean @ self.projection)}
        if self.unit:
            nodes.append(helper.make_node("LpNormalization", ["projected"], ["key"], axis=1))
        for node in nodes:
            node.name = f"key/{node.op_type}"
        values = [numpy_helper.from_array(value.numpy(), name) for name, value in constants.items()]
        floats = onnx.TensorProto.FLOAT
        x = helper.make_tensor_value_info("input", floats, ["batch", *sample_shape])
        key = helper.make_tensor_value_info("key", floats, ["batch", self.projection.shape[1]])
        graph = helper.make_graph(nodes, "key", [x], [key], values)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR_VERSION)


def pooled(x: Tensor, cells: int) -> Tensor:
    """Average N × C × H × W over about cells × cells places, and flatten; flatten anything else.

    Example:
        >>> pooled(torch.zeros(2, 3, 32, 32), 8).shape
        torch.Size([2, 192])
    """
    if x.ndim == 4:
        x = F.avg_pool2d(x, _window(x.shape[1:], cells))
    return x.flatten(1)


def _window(sample_shape: Sequence[int], cells: int) -> tuple[int, int]:
    return max(1, sample_shape[1] // cells), max(1, sample_shape[2] // cells)


def mirrored(projection: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Make a projection of pooled images that gives the same for an image and its mirror: the mean of both.

    Args:
        projection: (C · H · W) × dimensions.
        channels: C.
        height: H.
        width: W.
    """
    maps = projection.reshape(channels, height, width, -1)
    return ((maps + maps.flip(2)) / 2).reshape(projection.shape)


def discriminant(values: Tensor, changes: Tensor, dimensions: int) -> Tensor:
    """Find the directions in which inputs differ most, compared with how much one input changes from time to time.

    The columns w maximize (wᵀ S w) / (wᵀ D w), where S is the covariance of the values and D that of the changes, and
    have wᵀ D w = 1 (Fisher 1936; every input is a class of its own).

    Args:
        values: N × features.
        changes: M × features, differences of an input to itself.
        dimensions: Columns at most; as many as there are features and samples otherwise.

    Raises:
        DataError: All values are the same.

    Example:
        >>> values = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> round(float(discriminant(values, torch.eye(2), 1)[0, 0].abs()), 2)
        1.41
    """
    centred = (values - values.mean(0)).double()
    spread = centred.T @ centred / len(values)
    scale = float(spread.diagonal().mean())
    if not scale > 0:
        raise DataError("all inputs look the same to the cache: give samples that differ")
    noise = changes.double().T @ changes.double() / len(changes)
    noise += _RIDGE * max(float(noise.diagonal().mean()), scale * _RIDGE) * torch.eye(len(noise), dtype=torch.float64)
    variances, axes = torch.linalg.eigh(noise)
    whiten = axes / variances.sqrt()
    ratios, directions = torch.linalg.eigh(whiten.T @ spread @ whiten)
    kept = min(dimensions, int((ratios > ratios[-1] * 1e-9).sum()))
    projection: Tensor = (whiten @ directions.flip(1)[:, :kept]).float()
    return projection


def cosines(size: int) -> Tensor:
    """Give the basis of the discrete cosine transform (type 2), frequency × place.

    Example:
        >>> (cosines(4) @ cosines(4).T).round(decimals=3).diagonal().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    places = (torch.arange(size, dtype=torch.float64) + 0.5) * math.pi / size
    basis = torch.cos(torch.arange(size, dtype=torch.float64)[:, None] * places) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    made: Tensor = basis.float()
    return made


def perceptual_hash(channels: int, height: int, width: int, flip: bool) -> Tensor:
    """Make the projection of a perceptual hash: low frequencies of the grey image, whose signs are the bits.

    Where a mirrored image is to have the same hash, frequencies across are the even ones: the others change their sign.
    Where there are fewer frequencies than bits, the other bits are always 0.

    Args:
        channels: Of pooled images.
        height: Of pooled images.
        width: Of pooled images.
        flip: Whether mirror images are the same.

    Returns:
        (C · H · W) × 64.

    Raises:
        DataError: The images have hardly any frequencies.
    """
    down, across = cosines(height), cosines(width)
    step = 2 if flip else 1
    pairs = [(u, v) for u in range(height) for v in range(0, width, step)]
    if len(pairs) < _FEWEST_BITS:
        raise DataError(
            f"a hash needs at least {_FEWEST_BITS} frequencies, images of {height} × {width} have {len(pairs)}: "
            "use an embedding as the key"
        )
    pairs = sorted(pairs, key=lambda pair: (sum(pair), pair))[:BITS]
    maps = torch.stack([down[u][:, None] * across[v] for u, v in pairs], -1)
    maps = F.pad(maps / channels, (0, BITS - len(pairs)))
    return maps.expand(channels, height, width, BITS).reshape(-1, BITS)


def centres(keys: Tensor, lists: int, seed: int) -> Tensor:
    """Find centres of unit vectors, by k-means on the sphere: each is the mean of the keys it is nearest to, scaled.

    Args:
        keys: N × dimensions, unit vectors.
        lists: How many centres; N at most.
        seed: Of where it starts.
    """
    generator = torch.Generator().manual_seed(seed)
    found = keys[torch.randperm(len(keys), generator=generator)[:lists]].clone()
    for _ in range(10):
        nearest = (keys @ found.T).argmax(1)
        sums = torch.zeros_like(found).index_add_(0, nearest, keys)
        lengths = sums.square().sum(1, keepdim=True).sqrt()
        found = torch.where(lengths > _TINY, sums / lengths.clamp_min(_TINY), found)
    return found
