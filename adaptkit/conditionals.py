"""The table of all kinds of conditional computation, by the name a recipe uses."""

from adaptkit.conditional.activation_cache import ActivationCache
from adaptkit.conditional.base import Conditional
from adaptkit.conditional.early_exit import EarlyExit
from adaptkit.conditional.result_cache import ResultCache

CONDITIONALS: dict[str, type[Conditional]] = {
    "early_exit": EarlyExit,
    "result_cache": ResultCache,
    "activation_cache": ActivationCache,
}
