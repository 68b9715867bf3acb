"""Models that spend little on easy inputs."""

from adaptkit.conditional.early_exit import EarlyExit

__all__ = ["EarlyExit"]
