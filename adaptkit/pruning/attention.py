"""Multi-head attention with separate projections, whose heads can be pruned."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptkit.modes import evaluating
from adaptkit.pruning.masks import MARK, PATTERN, mark, mark_pattern
from adaptkit.surgery import replace_module


class SplitAttention(nn.Module):
    """The computation of nn.MultiheadAttention, with one projection each for queries, keys and values.

    out = W_o concat_h softmax(q_h k_hᵀ / sqrt(head_dim)) v_h (Vaswani et al. 2017, "Attention is all you need", section
    3.2). nn.MultiheadAttention packs the projections and insists on num_heads × head_dim = embed_dim, so no head can be
    taken out of it; here num_heads and head_dim are free.

    Args:
        embed_dim: Features of queries and of the output.
        num_heads: Heads.
        head_dim: Features of a head.
        key_dim: Features of the keys given.
        value_dim: Features of the values given.
        bias: Whether the projections have biases.
        dropout: Share of attention weights dropped in training.
        batch_first: Whether inputs are batch × length × features, rather than length × batch × features.

    Example:
        >>> attention = SplitAttention(8, num_heads=3, head_dim=4, key_dim=8, value_dim=8)
        >>> x = torch.zeros(2, 5, 8)
        >>> attention(x, x, x)[0].shape
        torch.Size([2, 5, 8])
    """

    in_proj_weight = None
    in_proj_bias = None  # keeps torch's fused encoder, which reads packed weights, away

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        head_dim: int,
        key_dim: int,
        value_dim: int,
        bias: bool = True,
        dropout: float = 0.0,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.dropout = dropout
        self.batch_first = batch_first
        self.q_proj = nn.Linear(embed_dim, inner, bias)
        self.k_proj = nn.Linear(key_dim, inner, bias)
        self.v_proj = nn.Linear(value_dim, inner, bias)
        self.out_proj = nn.Linear(inner, embed_dim, bias)

    def arguments(self) -> dict[str, Any]:
        """Return what the constructor was given, so that a saved structure can be rebuilt."""
        return {
            "embed_dim": self.out_proj.out_features,
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "key_dim": self.k_proj.in_features,
            "value_dim": self.v_proj.in_features,
            "bias": self.q_proj.bias is not None,
            "dropout": self.dropout,
            "batch_first": self.batch_first,
        }

    def follow(self) -> None:
        """Set the number of heads from the weights, after a cut."""
        self.num_heads = self.q_proj.weight.shape[0] // self.head_dim

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute what nn.MultiheadAttention computes, with its arguments; a given mask always counts."""
        del is_causal
        batched = query.dim() == 3
        if not batched:
            query, key, value = (x.unsqueeze(0 if self.batch_first else 1) for x in (query, key, value))
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (
            self._heads(layer(x)) for layer, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        mask = _additive(attn_mask, key_padding_mask, query)
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
            weights = F.dropout(torch.softmax(scores if mask is None else scores + mask, dim=-1), dropout)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        out = out if self.batch_first else out.transpose(0, 1)
        if batched:
            return out, weights
        return out.squeeze(0 if self.batch_first else 1), None if weights is None else weights.squeeze(0)

    def _heads(self, x: Tensor) -> Tensor:
        """View batch × length × features as batch × heads × length × head size."""
        batch, length, _ = x.shape
        return x.reshape(batch, length, self.num_heads, self.head_dim).transpose(1, 2)


def split_attention(packed: nn.MultiheadAttention) -> SplitAttention | None:
    """Convert nn.MultiheadAttention, with its weights, and with which of them are sparse or frozen.

    Returns:
        None where it uses features that have no counterpart.
    """
    if packed.bias_k is not None or packed.bias_v is not None or packed.add_zero_attn:
        return None
    has_bias = packed.in_proj_bias is not None
    split = SplitAttention(
        packed.embed_dim,
        packed.num_heads,
        packed.head_dim,
        packed.kdim,
        packed.vdim,
        has_bias,
        packed.dropout,
        packed.batch_first,
    )
    split.to(packed.out_proj.weight)
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    if packed.in_proj_weight is not None:
        names = ("in_proj_weight",) * 3
        weights = packed.in_proj_weight.detach().chunk(3)
    else:
        weights = tuple(getattr(packed, name).detach() for name in names)
    with torch.no_grad():
        for index, layer in enumerate((split.q_proj, split.k_proj, split.v_proj)):
            layer.weight.copy_(weights[index])
            _carry(packed, names[index], layer, "weight")
            if has_bias:
                layer.bias.copy_(packed.in_proj_bias.chunk(3)[index])
                _carry(packed, "in_proj_bias", layer, "bias")
        split.out_proj.load_state_dict(packed.out_proj.state_dict())
    for key, _ in split.out_proj.named_parameters():
        _carry(packed.out_proj, key, split.out_proj, key)
    return split


def _carry(source: nn.Module, name: str, layer: nn.Module, key: str) -> None:
    """Mark a parameter as sparse or frozen where the one it was made of is."""
    layer.get_parameter(key).requires_grad_(getattr(source, name).requires_grad)
    if name in getattr(source, MARK, ()):
        mark(layer, [key])
    if name in getattr(source, PATTERN, ()):
        mark_pattern(layer, [key])


def split_all_attention(model: nn.Module) -> list[str]:
    """Replace every nn.MultiheadAttention inside a model; return the names of those replaced."""
    replaced = []
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.MultiheadAttention) and name:
            new = split_attention(module)
            if new is not None:
                replace_module(model, name, new)
                replaced.append(name)
    return replaced


@torch.no_grad()
def attention_uses(model: nn.Module, inputs: tuple[Any, ...]) -> dict[str, float]:
    """Say how often each weight inside nn.MultiheadAttention is multiplied in a call: once for every token.

    Its output projection is never called as a module, so that a count by modules has it under the attention.

    Args:
        model: Left as it was.
        inputs: Of one call.

    Returns:
        By name of the weight; of packed weights the mean over queries, keys and values.
    """
    uses: dict[str, float] = {}

    def count(path: str, query: Tensor, key: Tensor, value: Tensor, **_: Any) -> None:
        q, k, v = (x.numel() / x.shape[-1] for x in (query, key, value))
        packed = {"in_proj_weight": (q + k + v) / 3, "q_proj_weight": q, "k_proj_weight": k, "v_proj_weight": v}
        for own, tokens in {**packed, "out_proj.weight": q}.items():
            name = f"{path}.{own}" if path else own
            uses[name] = uses.get(name, 0.0) + tokens

    handles = [
        module.register_forward_pre_hook(
            lambda _, args, kwargs, path=path: count(path, *args[:3], **kwargs), with_kwargs=True
        )
        for path, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    ]
    try:
        with evaluating(model):
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return uses


def _additive(attn_mask: Tensor | None, padding: Tensor | None, query: Tensor) -> Tensor | None:
    """Add up both masks, true meaning "do not look", as one that broadcasts over batch × heads × length × length."""
    masks = []
    if attn_mask is not None:
        shaped = attn_mask if attn_mask.dim() == 2 else attn_mask.reshape(query.shape[0], -1, *attn_mask.shape[1:])
        masks.append(_as_float(shaped, query))
    if padding is not None:
        masks.append(_as_float(padding, query)[:, None, None, :])
    return sum(masks[1:], masks[0]) if masks else None


def _as_float(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
