import numpy as np
import pytest
import tensorly
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.decomposition import parafac, partial_tucker

from adaptkit.factorization.core import cp, leading_vectors, low_rank, sparsified, spectrum, tucker2

SIZES = st.integers(1, 12)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def composed(core: torch.Tensor, out_vectors: torch.Tensor, in_vectors: torch.Tensor) -> torch.Tensor:
    return torch.einsum("rshw,or,is->oihw", core, out_vectors, in_vectors)


def relative(approximation: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((approximation - wanted).norm() / wanted.norm())


def hosvd_error(weight: np.ndarray, ranks: tuple[int, int]) -> float:
    """Full singular value decompositions of both unfoldings, projected one after the other."""
    projected = weight
    for mode, rank in enumerate(ranks):
        unfolded = np.moveaxis(weight, mode, 0).reshape(weight.shape[mode], -1)
        vectors = np.linalg.svd(unfolded, full_matrices=False)[0][:, :rank]
        projected = np.moveaxis(np.tensordot(vectors @ vectors.T, projected, (1, mode)), 0, mode)
    return float(np.linalg.norm(projected - weight) / np.linalg.norm(weight))


@settings(deadline=None)
@given(rows=SIZES, columns=SIZES, seed=st.integers(0, 99), data=st.data())
def test_low_rank_is_the_truncated_svd(rows, columns, seed, data):
    rank = data.draw(st.integers(1, min(rows, columns)))
    matrix = normal(rows, columns, seed=seed).double()
    left, right = low_rank(matrix, rank)
    u, s, v = np.linalg.svd(matrix.numpy(), full_matrices=False)
    assert left.shape == (rows, rank)
    assert right.shape == (rank, columns)
    np.testing.assert_allclose((left @ right).numpy(), (u[:, :rank] * s[:rank]) @ v[:rank], atol=1e-6)
    np.testing.assert_allclose(spectrum(matrix).numpy(), s**2, atol=1e-8)
    np.testing.assert_allclose(left.norm(dim=0), np.sqrt(s[:rank]), atol=1e-5)
    np.testing.assert_allclose(right.norm(dim=1), np.sqrt(s[:rank]), atol=1e-5)


def test_single_precision_is_enough_for_the_error_and_for_exact_ranks():
    matrix = normal(60, 5) @ normal(5, 200, seed=1) + 1e-3 * normal(60, 200, seed=2)
    for rank in (2, 5, 30, 60):
        left, right = low_rank(matrix, rank)
        s = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
        oracle = np.linalg.norm(s[rank:]) / np.linalg.norm(s)
        assert relative(left @ right, matrix) == pytest.approx(oracle, abs=1e-4)


def test_a_matrix_of_zeros_has_factors_of_zeros():
    left, right = low_rank(torch.zeros(3, 4), 2)
    assert torch.equal(left @ right, torch.zeros(3, 4))


def test_leading_vectors_come_with_their_energy():
    matrix = normal(6, 9).double()
    vectors, energy = leading_vectors(matrix, 2)
    u, s, _ = np.linalg.svd(matrix.numpy())
    assert float(energy) == pytest.approx((s[:2] ** 2).sum())
    np.testing.assert_allclose(np.abs(vectors.T.numpy() @ u[:, :2]), np.eye(2), atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(
    out=st.integers(2, 10), inputs=st.integers(2, 10), kernel=st.integers(1, 3), seed=st.integers(0, 99), data=st.data()
)
def test_tucker_lies_between_the_bounds_that_slow_decompositions_give(out, inputs, kernel, seed, data):
    ranks = (data.draw(st.integers(1, out)), data.draw(st.integers(1, inputs)))
    weight = normal(out, inputs, kernel, kernel, seed=seed).double()
    core, out_vectors, in_vectors = tucker2(weight, ranks)
    assert core.shape == (*ranks, kernel, kernel)
    for vectors in (out_vectors, in_vectors):
        torch.testing.assert_close(vectors.T @ vectors, torch.eye(vectors.shape[1], dtype=torch.double))
    error = relative(composed(core, out_vectors, in_vectors), weight)
    tails = []
    for mode, rank in enumerate(ranks):
        s = np.linalg.svd(np.moveaxis(weight.numpy(), mode, 0).reshape(weight.shape[mode], -1), compute_uv=False)
        tails.append(np.linalg.norm(s[rank:]) / np.linalg.norm(s))
    # No projection loses less than the worst mode alone, and iteration is not worse than twice-projected unfoldings.
    assert error >= max(tails) - 1e-9
    assert error <= hosvd_error(weight.numpy(), ranks) + 1e-3


@pytest.mark.parametrize("least", [1.0, 0.05])
@pytest.mark.parametrize("ranks", [(20, 20), (8, 16), (24, 4), (40, 40)])
def test_tucker_is_as_good_as_tensorly(ranks, least):
    """Where all singular values are about alike, only iteration comes as close."""
    weight = normal(40, 40, 3, 3) * torch.linspace(1, least, 40)[:, None, None, None]
    with tensorly.backend_context("pytorch"):
        (core, (out_vectors, in_vectors)), _ = partial_tucker(weight, rank=list(ranks), modes=[0, 1])
    theirs = relative(composed(core, out_vectors, in_vectors), weight)
    assert relative(composed(*tucker2(weight, ranks)), weight) == pytest.approx(theirs, abs=2e-3)


def test_tucker_finds_an_exact_decomposition():
    weight = composed(normal(3, 2, 3, 3), normal(9, 3, seed=1), normal(7, 2, seed=2))
    assert relative(composed(*tucker2(weight, (3, 2))), weight) < 1e-4
    assert relative(composed(*tucker2(weight, (2, 2))), weight) > 0.05
    assert relative(composed(*tucker2(weight, (9, 7))), weight) < 1e-5


@pytest.mark.parametrize("shape", [(9, 7, 9), (9, 7, 3, 3), (6, 5)])
def test_cp_finds_an_exact_sum(shape):
    parts = [normal(size, 3, seed=number) for number, size in enumerate(shape)]
    letters = "abcd"[: len(shape)]
    formula = ",".join(f"{letter}r" for letter in letters) + f"->{letters}"
    tensor = torch.einsum(formula, *parts)
    factors = cp(tensor, 3)
    assert relative(torch.einsum(formula, *factors), tensor) < 0.02
    assert relative(torch.einsum(formula, *cp(tensor, 1)), tensor) > 0.1
    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    torch.testing.assert_close(norms, norms[:1].expand_as(norms))


@pytest.mark.parametrize("rank", [1, 8, 30])
def test_cp_is_as_good_as_tensorly(rank):
    tensor = normal(20, 16, 9)
    with tensorly.backend_context("pytorch"):
        weights, factors = parafac(tensor, rank, n_iter_max=100, tol=1e-7, init="random", random_state=0)
    theirs = relative(torch.einsum("r,ar,br,cr->abc", weights, *factors), tensor)
    assert relative(torch.einsum("ar,br,cr->abc", *cp(tensor, rank)), tensor) <= theirs + 0.03


def test_a_step_of_cp_is_the_least_squares_solution():
    tensor = normal(5, 4, 3).double()
    a, b, c = cp(tensor, 2)
    # The last factor was solved for last, so that no other one is better for the same first two (but for the ridge).
    products = torch.einsum("ar,br->abr", a, b).reshape(-1, 2)
    best = np.linalg.lstsq(products.numpy(), tensor.reshape(-1, 3).numpy(), rcond=None)[0].T
    np.testing.assert_allclose(c.numpy(), best, atol=1e-4)


def test_cp_takes_more_terms_than_there_are_dimensions_and_is_repeatable():
    tensor = normal(6, 5, 4)
    factors = cp(tensor, 25)
    assert relative(torch.einsum("ar,br,cr->abc", *factors), tensor) < 0.1
    assert all(torch.equal(one, other) for one, other in zip(factors, cp(tensor, 25), strict=True))


def test_zeros_stand_where_unimportant_neurons_have_no_rank():
    left, right = normal(4, 3), normal(3, 5, 2, seed=1)
    rows, columns = torch.tensor([True, False, False, True]), torch.tensor([False, True, False, False, True])
    sparse_left, sparse_right = sparsified(left, right, rows, columns, 1)
    for i in range(4):
        for r in range(3):
            assert sparse_left[i, r] == (0 if rows[i] and r >= 1 else left[i, r])
    for r in range(3):
        for j in range(5):
            wanted = torch.zeros(2) if columns[j] and r >= 1 else right[r, j]
            assert torch.equal(sparse_right[r, j], wanted)
