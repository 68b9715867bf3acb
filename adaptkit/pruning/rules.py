"""The table of rules: how the elements of each ATen operator's inputs end up in its outputs."""

from __future__ import annotations

from collections.abc import Callable

from adaptkit.pruning import rules_math, rules_recurrent, rules_shape
from adaptkit.pruning.rules_shape import Result
from adaptkit.pruning.values import Call

Rule = Callable[[Call], Result]

_POINTWISE = """
    abs add alias bitwise_and bitwise_not bernoulli celu clamp clamp_max clamp_min clone contiguous copy cos detach
    detach_ div dropout elu eq erf exp feature_dropout fill ge gelu gt hardsigmoid hardswish hardtanh le leaky_relu
    lift_fresh_copy log log1p log_sigmoid logical_and logical_not logical_or lt masked_fill maximum minimum mish mul ne
    neg pow reciprocal relu relu6 remainder rsqrt rsub selu sigmoid sign silu sin softplus softsign sqrt square sub tanh
    threshold to _to_copy type_as where zero zeros_like ones_like full_like empty_like rand_like randn_like
"""
_FILLED = "empty full new_empty new_full new_ones new_zeros ones zeros"
_CONSTANT = "arange eye linspace rand randn scalar_tensor"
_RESHAPE = "flatten reshape squeeze unflatten unsqueeze view _unsafe_view view_as reshape_as"
_REDUCTION = "amax amin argmax argmin linalg_vector_norm logsumexp max mean min norm prod std sum var var_mean"
_SPATIAL = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d avg_pool1d
    avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool2d_with_indices max_pool3d upsample_bicubic2d
    upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
"""


def _table(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_table(_POINTWISE, rules_math.pointwise),
    **_table(_CONSTANT, rules_math.constant),
    **_table(_FILLED, rules_math.filled),
    **_table(_RESHAPE, rules_shape.reshape),
    **_table(_REDUCTION, rules_math.reduction),
    **_table(_SPATIAL, rules_math.spatial),
    **_table("conv1d conv2d conv3d", rules_math.convolution),
    **_table("conv_transpose1d conv_transpose2d conv_transpose3d", rules_math.transposed_convolution),
    **_table("matmul mm bmm", rules_math.matmul),
    **_table("batch_norm instance_norm", rules_math.batch_norm),
    **_table("layer_norm rms_norm", rules_math.layer_norm),
    **_table("softmax log_softmax cumsum sort", rules_math.along_one),
    **_table("expand expand_as", rules_shape.expand),
    **_table("chunk", rules_shape.chunk),
    **_table("transpose swapaxes swapdims t numpy_T", rules_shape.transpose),
    **_table("pad constant_pad_nd", rules_shape.pad),
    **_table("lstm gru rnn_tanh rnn_relu", rules_recurrent.recurrent),
    **_table("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell", rules_recurrent.cell),
    "linear": rules_math.linear,
    "addmm": rules_math.addmm,
    "einsum": rules_math.einsum,
    "scaled_dot_product_attention": rules_math.attention,
    "prelu": rules_math.prelu,
    "group_norm": rules_math.group_norm,
    "permute": rules_shape.permute,
    "slice": rules_shape.slice_,
    "select": rules_shape.select,
    "unbind": rules_shape.unbind,
    "split": rules_shape.chunk,
    "split_with_sizes": rules_shape.split,
    "cat": rules_shape.cat,
    "stack": rules_shape.stack,
    "roll": rules_shape.roll,
    "flip": rules_shape.flip,
    "index": rules_shape.index,
    "embedding": rules_shape.embedding,
    "pixel_shuffle": rules_shape.pixel_shuffle,
    "getitem": rules_shape.getitem,
}


def rule_for(target: object) -> Rule:
    """Return the rule of an operator, in-place and overloaded forms included.

    Example:
        >>> import torch
        >>> rule_for(torch.ops.aten.relu_.default).__name__
        'pointwise'
    """
    text = str(target)
    if "getitem" in text:
        return RULES["getitem"]
    namespace, _, rest = text.partition(".")
    name = rest.split(".")[0]
    if namespace != "aten":
        return rules_math.unknown
    return RULES.get(name, RULES.get(name.rstrip("_"), rules_math.unknown))
