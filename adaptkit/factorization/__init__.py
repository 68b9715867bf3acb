"""Factorization: layers of lower rank."""

from adaptkit.factorization.cp import CpFactorization
from adaptkit.factorization.sparse_svd import SparseSvdFactorization
from adaptkit.factorization.svd import SvdFactorization
from adaptkit.factorization.tucker import TuckerFactorization

__all__ = ["CpFactorization", "SparseSvdFactorization", "SvdFactorization", "TuckerFactorization"]
