"""The table of all techniques, by the name a recipe uses."""

from adaptkit.distillation.adversarial import AdversarialDistillation
from adaptkit.distillation.attention import AttentionDistillation
from adaptkit.distillation.cross_modal import CrossModalDistillation
from adaptkit.distillation.decoupled import DecoupledDistillation
from adaptkit.distillation.dist import RelationDistillation
from adaptkit.distillation.features import FeatureDistillation
from adaptkit.distillation.lifelong import LifelongDistillation
from adaptkit.distillation.logits import LogitDistillation
from adaptkit.distillation.multi_teacher import MultiTeacherDistillation
from adaptkit.distillation.quantized import QuantizedDistillation
from adaptkit.factorization.cp import CpFactorization
from adaptkit.factorization.sparse_svd import SparseSvdFactorization
from adaptkit.factorization.svd import SvdFactorization
from adaptkit.factorization.tucker import TuckerFactorization
from adaptkit.pruning.admm import ADMMPruning
from adaptkit.pruning.depth import DepthPruning
from adaptkit.pruning.gradual import GradualPruning
from adaptkit.pruning.load_balanced import LoadBalancedPruning
from adaptkit.pruning.magnitude import MagnitudePruning
from adaptkit.pruning.movement import MovementPruning
from adaptkit.pruning.n_m import NMPruning
from adaptkit.pruning.single_shot import SingleShotPruning
from adaptkit.pruning.structured import StructuredPruning
from adaptkit.quantization.dynamic import DynamicQuantization
from adaptkit.quantization.mixed import MixedPrecision
from adaptkit.quantization.partial_sums import PartialSumQuantization
from adaptkit.quantization.qat import QuantizationAwareTraining
from adaptkit.quantization.static import StaticQuantization
from adaptkit.quantization.weight_only import WeightOnlyQuantization
from adaptkit.technique import Technique

TECHNIQUES: dict[str, type[Technique]] = {
    "prune.structured": StructuredPruning,
    "prune.depth": DepthPruning,
    "prune.magnitude": MagnitudePruning,
    "prune.gradual": GradualPruning,
    "prune.load_balanced": LoadBalancedPruning,
    "prune.n_m": NMPruning,
    "prune.movement": MovementPruning,
    "prune.admm": ADMMPruning,
    "prune.single_shot": SingleShotPruning,
    "distill.logits": LogitDistillation,
    "distill.features": FeatureDistillation,
    "distill.decoupled": DecoupledDistillation,
    "distill.dist": RelationDistillation,
    "distill.attention": AttentionDistillation,
    "distill.multi_teacher": MultiTeacherDistillation,
    "distill.adversarial": AdversarialDistillation,
    "distill.cross_modal": CrossModalDistillation,
    "distill.lifelong": LifelongDistillation,
    "distill.quantized": QuantizedDistillation,
    "factorize.svd": SvdFactorization,
    "factorize.sparse_svd": SparseSvdFactorization,
    "factorize.tucker": TuckerFactorization,
    "factorize.cp": CpFactorization,
    "quantize.static": StaticQuantization,
    "quantize.dynamic": DynamicQuantization,
    "quantize.weight_only": WeightOnlyQuantization,
    "quantize.qat": QuantizationAwareTraining,
    "quantize.mixed": MixedPrecision,
    "quantize.partial_sums": PartialSumQuantization,
}
