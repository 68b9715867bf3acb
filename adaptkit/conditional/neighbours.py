"""K nearest neighbours: how many to ask, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaptkit.conditional.thresholds import Array


@dataclass(frozen=True)
class Neighbours:
    """Samples that are asked, nearest first, what should be done.

    Args:
        points: T × F, standardized features.
        says: T × L, 0 or 1.
        k: How many are asked.
    """

    points: Array
    says: Array
    k: int

    def votes(self, x: Array) -> Array:
        """Give the share of the k nearest that say yes, N × L; of equally near ones the first stored is asked.

        Args:
            x: N × F.

        Example:
            >>> stored = Neighbours(np.array([[0.0], [1.0], [5.0]]), np.array([[1], [0], [0]]), 2)
            >>> stored.votes(np.array([[0.2], [4.0]])).tolist()
            [[0.5], [0.0]]
        """
        shares: Array = self.says[nearest(self.points, x, self.k)].mean(axis=1)
        return shares


def nearest(points: Array, x: Array, k: int) -> Array:
    """Give the places of the k nearest points of each sample, N × k, nearest first; the first of equally near ones."""
    distances = (points**2).sum(axis=1) - 2 * x @ points.T
    order: Array = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order


@dataclass(frozen=True)
class Judged:
    """How well neighbours tell what should be done, on samples that are not among them.

    Args:
        k: How many are asked.
        right: Share of the samples where most of them are right.
        blind: Share that the more frequent answer gets right, without looking.
    """

    k: int
    right: float
    blind: float


def best_k(points: Array, says: Array, counts: Sequence[int], folds: int, seed: int) -> Judged:
    """Find how many neighbours to ask by cross-validation: the number with the least Σ (share of votes − answer)².

    A squared error, since shares are compared with thresholds: being unsure where one should be counts, too.

    Args:
        points: N × F.
        says: N × L, 0 or 1.
        counts: Numbers to try; those above the size of the smallest training part are left out, but the least.
        folds: Parts.
        seed: Which sample is in which part.
    """
    parts = np.array_split(np.random.default_rng(seed).permutation(len(points)), folds)
    room = len(points) - max(map(len, parts))
    tried = [k for k in counts if k <= room] or [min(room, *counts)]
    errors, hits = np.zeros(len(tried)), np.zeros(len(tried))
    for held in parts:
        rest = np.setdiff1d(np.arange(len(points)), held)
        answers = says[rest][nearest(points[rest], points[held], max(tried))]
        for place, k in enumerate(tried):
            shares = answers[:, :k].mean(axis=1)
            errors[place] += ((shares - says[held]) ** 2).sum()
            hits[place] += ((shares > 0.5) == (says[held] == 1)).sum()
    best = int(errors.argmin())
    blind = np.maximum(says.mean(axis=0), 1 - says.mean(axis=0)).mean()
    return Judged(tried[best], float(hits[best] / says.size), float(blind))
