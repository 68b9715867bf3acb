"""Pruning: channels, whole blocks, single weights."""

from adaptkit.pruning.admm import ADMMPruning
from adaptkit.pruning.depth import DepthPruning
from adaptkit.pruning.gradual import GradualPruning
from adaptkit.pruning.load_balanced import LoadBalancedPruning
from adaptkit.pruning.magnitude import MagnitudePruning
from adaptkit.pruning.movement import MovementPruning
from adaptkit.pruning.n_m import NMPruning
from adaptkit.pruning.single_shot import SingleShotPruning
from adaptkit.pruning.structured import StructuredPruning

__all__ = [
    "ADMMPruning",
    "DepthPruning",
    "GradualPruning",
    "LoadBalancedPruning",
    "MagnitudePruning",
    "MovementPruning",
    "NMPruning",
    "SingleShotPruning",
    "StructuredPruning",
]
