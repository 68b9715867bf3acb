"""The table of all kinds of conditional computation, by the name a recipe uses."""

from adaptkit.conditional.activation_cache import ActivationCache
from adaptkit.conditional.base import Conditional
from adaptkit.conditional.cascade import CascadeOfModels
from adaptkit.conditional.early_exit import EarlyExit
from adaptkit.conditional.frame_cache import FrameCache
from adaptkit.conditional.result_cache import ResultCache
from adaptkit.conditional.selector import ModelSelection

CONDITIONALS: dict[str, type[Conditional]] = {
    "activation_cache": ActivationCache,
    "cascade": CascadeOfModels,
    "early_exit": EarlyExit,
    "frame_cache": FrameCache,
    "result_cache": ResultCache,
    "selector": ModelSelection,
}
