"""Low-rank approximation of matrices and tensors: tensors in, factors out.

Singular vectors come from the eigenvectors of A Aᵀ, which is small where A is wide: for the unfoldings of a convolution
that is many times faster than a singular value decomposition, at an error of the square root of the precision in
singular values that are themselves that small, and those are cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_HALF_SWEEPS = 50
_TOLERANCE = 5e-4
_SWEEPS = 50
_CP_TOLERANCE = 1e-5
_RIDGE = 1e-6


def spectrum(matrix: Tensor) -> Tensor:
    """Return the squared singular values of a matrix, largest first.

    Args:
        matrix: m × n.

    Returns:
        min(m, n) values.

    Example:
        >>> spectrum(torch.diag(torch.tensor([1.0, 3.0])))
        tensor([9., 1.])
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    values: Tensor = torch.linalg.eigvalsh(wide @ wide.T)
    return values.flip(0).clamp(min=0)


def leading_vectors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the left singular vectors of the largest singular values, and the sum of those values' squares.

    Args:
        matrix: m × n.
        rank: How many, r ≤ m.

    Returns:
        m × r, orthonormal; and a number.
    """
    values, vectors = torch.linalg.eigh(matrix @ matrix.T)
    return vectors[:, -rank:].flip(1), values[-rank:].clamp(min=0).sum()


def low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Approximate a matrix by L R with the least squared error: ‖A − L R‖² is the sum of the σ² that are cut.

    (Eckart and Young 1936.) The factors are balanced: each column of L has the norm of its row of R, sqrt(σ).

    Args:
        matrix: A, m × n.
        rank: r ≤ min(m, n).

    Returns:
        L, m × r, and R, r × n.

    Example:
        >>> left, right = low_rank(torch.diag(torch.tensor([4.0, 1.0])), 1)
        >>> (left @ right).abs()
        tensor([[4., 0.],
                [0., 0.]])
    """
    if matrix.shape[0] > matrix.shape[1]:
        right, left = low_rank(matrix.T, rank)
        return left.T, right.T
    vectors, _ = leading_vectors(matrix, rank)
    projected = vectors.T @ matrix
    balance = projected.norm(dim=1).clamp(min=torch.finfo(matrix.dtype).tiny).sqrt()
    return vectors * balance, projected / balance[:, None]


def sparsified(left: Tensor, right: Tensor, rows: Tensor, columns: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Keep a lower rank for some rows and columns of L R: zero what the further ranks hold for them.

    Args:
        left: L, m × r.
        right: R, r × n or r × n × further dimensions.
        rows: Which of the m, as booleans.
        columns: Which of the n.
        kept: Ranks that they keep.

    Example:
        >>> marked = torch.tensor([True, False])
        >>> sparsified(torch.ones(2, 3), torch.ones(3, 2), marked, marked, 1)
        (tensor([[1., 0., 0.],
                [1., 1., 1.]]), tensor([[1., 1.],
                [0., 1.],
                [0., 1.]]))
    """
    left, right = left.clone(), right.clone()
    left[rows.to(left.device), kept:] = 0
    right[kept:, columns.to(right.device)] = 0
    return left, right


def tucker2(weight: Tensor, ranks: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Approximate a kernel by W ≈ C ×₀ U ×₁ V, U and V orthonormal (Tucker-2), by higher-order orthogonal iteration.

    U and V are improved in turn, each to the best for the other, beginning with the leading vectors of the unfolding
    by inputs, until that lowers the relative error by less than 5e-4 (De Lathauwer et al. 2000, "On the best rank-1 and
    rank-(R1, …, RN) approximation of higher-order tensors", section 4; for convolutions Kim et al. 2016, "Compression
    of deep convolutional neural networks for fast and low power mobile applications", section 3.1).

    Args:
        weight: W, out × in × kernel dimensions.
        ranks: (r, s) with r ≤ out, s ≤ in.

    Returns:
        C, r × s × kernel dimensions; U, out × r; V, in × s.

    Example:
        >>> core, out_vectors, in_vectors = tucker2(torch.ones(4, 6, 3, 3), (1, 1))
        >>> core.abs().mean()
        tensor(4.8990)
    """
    out, inputs = weight.shape[:2]
    by_mode = (weight.reshape(out, -1), weight.transpose(0, 1).reshape(inputs, -1))
    total = float(weight.square().sum())
    bases = [weight.new_empty(0), leading_vectors(by_mode[1], ranks[1])[0]]
    error, mode = math.inf, 0
    for _ in range(_HALF_SWEEPS):
        other = 1 - mode
        projected = (bases[other].T @ by_mode[other]).view(ranks[other], weight.shape[mode], -1)
        unfolded = projected.transpose(0, 1).reshape(weight.shape[mode], -1)
        bases[mode], kept = leading_vectors(unfolded, ranks[mode])
        before, error = error, _relative(total - float(kept), total)
        if before - error < _TOLERANCE:
            break
        mode = other
    core = (bases[mode].T @ unfolded).view(ranks[mode], ranks[1 - mode], *weight.shape[2:])
    return core if mode == 0 else core.transpose(0, 1).contiguous(), bases[0], bases[1]


def cp(tensor: Tensor, rank: int, seed: int = 0) -> list[Tensor]:
    """Approximate a tensor by a sum of r outer products, T ≈ Σ a_r ∘ b_r ∘ c_r …, by alternating least squares.

    Each factor in turn is solved for with the others fixed, A = T₍₀₎ (B ⊙ C) (BᵀB ∗ CᵀC)⁻¹, beginning with leading
    singular vectors, until a sweep lowers the relative error by less than 1e-5 or 50 are done (Kolda and Bader 2009,
    "Tensor decompositions and applications", section 3.4). The products T₍₀₎ᵀ A are shared by all modes but the first,
    and a ridge of 1e-6 keeps components from cancelling each other. A component has the same norm in every factor.

    Args:
        tensor: T; cheapest where the first modes are the large ones.
        rank: The number of products r; may be more than any dimension.
        seed: For the columns that have no singular vector to begin with.

    Returns:
        A factor for every mode, length of the mode × r.

    Example:
        >>> a, b, c = cp(torch.full((4, 3, 2), 0.5), 1)
        >>> torch.einsum("ar,br,cr->abc", a, b, c).mean()
        tensor(0.5000)
    """
    generator = torch.Generator().manual_seed(seed)
    factors = [_start(tensor.movedim(mode, 0).flatten(1), rank, generator) for mode in range(tensor.dim())]
    flat = tensor.flatten(1)
    total = float(flat.square().sum())
    error = math.inf
    for _ in range(_SWEEPS):
        grams = _solve_first(factors, flat)
        products = (flat.T @ factors[0]).view(*tensor.shape[1:], rank)
        rest = _solve_others(factors, grams, products, total)
        _balance(factors)
        before, error = error, _relative(rest, total)
        if before - error < _CP_TOLERANCE:
            break
    return factors


def _start(unfolded: Tensor, rank: int, generator: torch.Generator) -> Tensor:
    found, _ = leading_vectors(unfolded, min(rank, len(unfolded)))
    missing = rank - found.shape[1]
    noise = torch.randn(len(unfolded), missing, generator=generator).to(found)
    return torch.cat([found, noise / noise.norm(dim=0)], 1)


def _solve_first(factors: list[Tensor], flat: Tensor) -> list[Tensor]:
    """Solve for the factor of the first mode; return every factor's Gram matrix."""
    grams = [factor.T @ factor for factor in factors]
    khatri_rao = factors[1]
    for factor in factors[2:]:
        khatri_rao = (khatri_rao[:, None] * factor).flatten(0, 1)
    factors[0] = _least_squares(flat @ khatri_rao, _product(grams[1:]))
    grams[0] = factors[0].T @ factors[0]
    return grams


def _solve_others(factors: list[Tensor], grams: list[Tensor], products: Tensor, total: float) -> float:
    """Solve for the factors of all further modes; return the squared error that is left."""
    for mode in range(1, len(factors)):
        others = [other for other in range(1, len(factors)) if other != mode]
        contracted = products
        for other in others:
            shape = [1] * products.dim()
            shape[other - 1], shape[-1] = factors[other].shape
            contracted = contracted * factors[other].view(shape)
        target = contracted.sum([other - 1 for other in others]) if others else contracted
        gram = _product([grams[0], *(grams[other] for other in others)])
        factors[mode] = _least_squares(target, gram)
        grams[mode] = factors[mode].T @ factors[mode]
    explained = 2 * float((target * factors[-1]).sum()) - float((gram * grams[-1]).sum())
    return total - explained


def _least_squares(target: Tensor, gram: Tensor) -> Tensor:
    """Solve X G = M with a small ridge, in double precision: G may be close to singular."""
    wide = gram.double()
    wide.diagonal().add_(_RIDGE * wide.diagonal().mean() + torch.finfo(gram.dtype).tiny)
    return torch.cholesky_solve(target.T.double(), torch.linalg.cholesky(wide)).T.to(target.dtype)


def _product(matrices: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(matrices)).prod(0)


def _balance(factors: list[Tensor]) -> None:
    norms = torch.stack([factor.norm(dim=0) for factor in factors]).clamp(min=torch.finfo(factors[0].dtype).tiny)
    common = norms.log().mean(0).exp()
    for mode, factor in enumerate(factors):
        factors[mode] = factor * (common / norms[mode])


def _relative(rest: float, total: float) -> float:
    return math.sqrt(max(rest, 0.0) / total) if total > 0 else 0.0
