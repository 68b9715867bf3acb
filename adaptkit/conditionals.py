"""The table of all kinds of conditional computation, by the name a recipe uses."""

from adaptkit.conditional.base import Conditional
from adaptkit.conditional.cascade import CascadeOfModels
from adaptkit.conditional.early_exit import EarlyExit
from adaptkit.conditional.frame_cache import FrameCache
from adaptkit.conditional.selector import ModelSelection

CONDITIONALS: dict[str, type[Conditional]] = {
    "cascade": CascadeOfModels,
    "early_exit": EarlyExit,
    "frame_cache": FrameCache,
    "selector": ModelSelection,
}
