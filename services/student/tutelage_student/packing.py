"""Rows packed into one sequence without padding, and the attention that keeps them apart.

Linear layers see `tokens` positions in one long row, so none is wasted on padding. Attention needs
rows side by side: it gathers them into `[rows, heads, longest, head size]`, where padding stands
behind each row's end and a causal mask hides it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ATTENTION = "tutelage_packed"
# Above this the scores of all layers, kept for the backward pass, take too much memory.
FOLDED_LONGEST = 512


@dataclass
class KeyValueCache:
    """Keys and values of rows that are being continued: per layer `[rows, heads, capacity, size]`.

    `lengths[row]` positions are filled.
    """

    lengths: Tensor
    capacity: int
    keys: dict[int, Tensor]
    values: dict[int, Tensor]

    def keep(self, rows: Tensor) -> None:
        """Drops every row but `rows` (indices)."""
        self.lengths = self.lengths[rows]
        for stored in (self.keys, self.values):
            for layer, tensor in stored.items():
                stored[layer] = tensor[rows]


@dataclass
class Layout:
    """Where the rows of a packed batch lie.

    slots: `[tokens]` index of each packed token in the padded `rows * longest` grid.
    mask: `[rows, 1, longest, longest]`, True where a token may look; None is plainly causal.
    """

    rows: int
    longest: int
    slots: Tensor
    mask: Tensor | None = None
    cache: KeyValueCache | None = None
    _biases: dict[tuple[int, int, torch.dtype], Tensor] = field(
        default_factory=dict, init=False, repr=False
    )

    def to(self, device: torch.device) -> "Layout":
        """The same layout with its indices on `device`."""
        mask = None if self.mask is None else self.mask.to(device)
        return replace(self, slots=self.slots.to(device), mask=mask)

    @property
    def dense(self) -> bool:
        """Whether all rows are equally long, so that no gathering is needed."""
        return self.slots.numel() == self.rows * self.longest

    def bias(self, heads: int, groups: int, dtype: torch.dtype) -> Tensor:
        """What is added to the scores: 0 where a token may look, minus infinity elsewhere.

        `[heads / groups * longest, longest]`, with a mask `[rows * groups, …]` of that; the query
        heads that share a key head lie behind each other. Made once for all layers.
        """
        if self.mask is None:
            return _causal_bias(self.longest, heads // groups, dtype, self.slots.device)
        key = heads, groups, dtype
        bias = self._biases.get(key)
        if bias is None:
            hidden = self.mask.logical_not().repeat(1, heads // groups, 1, 1).flatten(1, 2)
            bias = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
            bias = bias.masked_fill_(hidden, -torch.inf).repeat_interleave(groups, dim=0)
            self._biases[key] = bias
        return bias


def layout_of(lengths: Sequence[int]) -> Layout:
    """The layout of rows with these lengths, in tokens."""
    longest = max(lengths)
    slots = torch.cat([torch.arange(length) + row * longest for row, length in enumerate(lengths)])
    return Layout(len(lengths), longest, slots)


def positions_of(lengths: Sequence[int]) -> Tensor:
    """`[tokens]` position of each packed token in its own row."""
    return torch.cat([torch.arange(length) for length in lengths])


def _spread(packed: Tensor, layout: Layout) -> Tensor:
    """`[1, heads, tokens, size]` to `[rows, heads, longest, size]`."""
    heads, size = packed.shape[1], packed.shape[3]
    tokens = packed[0].transpose(0, 1)
    if not layout.dense:
        grid = tokens.new_zeros(layout.rows * layout.longest, heads, size)
        tokens = grid.index_copy(0, layout.slots, tokens)
    return tokens.reshape(layout.rows, layout.longest, heads, size).transpose(1, 2)


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    layout: Layout,
    **_unused: Any,
) -> tuple[Tensor, None]:
    """Attention over a packed batch; query, key and value are `[1, heads, tokens, size]`.

    Returns `[1, tokens, heads, size]`, as transformers' attention interface wants it.
    """
    if layout.cache is not None and layout.longest == 1:
        return _continued_attention(module, query, key, value, scaling, layout.cache), None
    query, key, value = (_spread(part, layout) for part in (query, key, value))
    if layout.cache is not None:
        _fill(layout.cache, _layer_of(module), key, value)
    if query.device.type == "cpu" and layout.longest <= FOLDED_LONGEST:
        result = _folded_attention(query, key, value, layout, scaling)
    else:
        result = scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=layout.mask,
            is_causal=layout.mask is None,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    tokens = result.transpose(1, 2).reshape(-1, result.shape[1], result.shape[3])
    if not layout.dense:
        tokens = tokens.index_select(0, layout.slots)
    return tokens.unsqueeze(0), None


def _folded_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None
) -> Tensor:
    """Plain attention with the query heads that share a key head folded into one product.

    PyTorch's flash kernel on CPU is slow at short rows: 32 rows of 22 tokens take it 20.7 ms
    forward and backward, this 3.3 ms.
    """
    rows, heads, longest, size = query.shape
    groups = key.shape[1]
    folded = query.reshape(rows * groups, heads // groups * longest, size)
    bias = layout.bias(heads, groups, query.dtype)
    scale = size**-0.5 if scaling is None else scaling
    keys = key.reshape(rows * groups, longest, size).transpose(1, 2)
    scores = torch.baddbmm(bias, folded, keys, alpha=scale).softmax(-1)
    return (scores @ value.reshape(rows * groups, longest, size)).view(query.shape)


# Trainings use it too, for which tensors of inference mode are no good.
@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _causal_bias(longest: int, heads: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`[heads * longest, longest]`: 0 where a token may look, minus infinity elsewhere."""
    later = torch.ones(longest, longest, dtype=torch.bool, device=device).triu(1)
    bias = torch.zeros(longest, longest, dtype=dtype, device=device)
    return bias.masked_fill_(later, -torch.inf).repeat(heads, 1)


def _layer_of(module: Any) -> int:
    return int(module.layer_idx)


def _fill(cache: KeyValueCache, layer: int, key: Tensor, value: Tensor) -> None:
    for stored, new in ((cache.keys, key), (cache.values, value)):
        room = new.new_zeros(new.shape[0], new.shape[1], cache.capacity, new.shape[3])
        room[:, :, : new.shape[2]] = new
        stored[layer] = room


def _continued_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    cache: KeyValueCache,
) -> Tensor:
    """One new token a row: `[1, heads, rows, size]`, looking at all that the cache holds."""
    layer = _layer_of(module)
    keys, values = cache.keys[layer], cache.values[layer]
    rows = torch.arange(keys.shape[0], device=keys.device)
    keys[rows, :, cache.lengths] = key[0].transpose(0, 1)
    values[rows, :, cache.lengths] = value[0].transpose(0, 1)
    longest = int(cache.lengths.max()) + 1
    visible = torch.arange(longest, device=keys.device) <= cache.lengths[:, None]
    result = scaled_dot_product_attention(
        query[0].transpose(0, 1).unsqueeze(2),
        keys[:, :, :longest],
        values[:, :, :longest],
        attn_mask=visible[:, None, None],
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return result.transpose(1, 2).transpose(0, 1)


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, packed_attention)
