"""What says how sure a classifier is."""

from typing import Literal

Rule = Literal["confidence", "margin", "entropy"]
"""What is compared with a threshold: the largest probability, its distance to the second, or −Σ p ln p in nats."""


def leaves_below(rule: Rule) -> bool:
    """Say whether a small score means sure: only the entropy's does."""
    return rule == "entropy"
