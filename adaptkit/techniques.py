"""The table of all techniques, by the name a recipe uses."""

from adaptkit.distillation.features import FeatureDistillation
from adaptkit.distillation.logits import LogitDistillation
from adaptkit.pruning.depth import DepthPruning
from adaptkit.pruning.structured import StructuredPruning
from adaptkit.quantization.static import StaticQuantization
from adaptkit.technique import Technique

TECHNIQUES: dict[str, type[Technique]] = {
    "prune.structured": StructuredPruning,
    "prune.depth": DepthPruning,
    "distill.logits": LogitDistillation,
    "distill.features": FeatureDistillation,
    "quantize.static": StaticQuantization,
}
