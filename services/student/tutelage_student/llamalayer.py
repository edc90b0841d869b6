"""Llama's decoder layer with frozen weights and an adapter, in few operations.

    a = norm(x);  q, k, v = a W_qkv;  x' = x + attention(rope(q), rope(k), v) W_o
    b = norm(x'); g, u = b W_gu;      y = x' + (silu(g) * u) W_d

(Touvron et al. 2023, arXiv 2302.13971), where each W is a frozen weight plus scale * up * down.

A student's training takes 8 rows of 20 tokens a step. At that size what costs time is not the
products alone but the number of operations around them: a profile counts some 260 kernels a layer,
forward and backward, for transformers' layer under autograd, and 130 for this one. Fine-tuning 10
layers of SmolLM2-135M on 8 TREC rows takes 148 to 177 ms a step instead of 242 to 268 on one core
with AMX, 114 to 132 instead of 157 to 198 on two.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from tutelage_student.frozenlinear import FrozenLinear
from tutelage_student.packing import FOLDED_LONGEST, Layout, packed_attention


class Adapter(Protocol):
    """A low-rank part over linear maps that read the same input; scale is in the ups already.

    down `[parts * rank, in]`; ups, one a part, `[out of the part, rank]`; the gradients alike.
    """

    down: Tensor
    ups: tuple[Tensor, ...]
    down_gradient: Tensor | None
    up_gradients: tuple[Tensor, ...]


class LayerAdapters(Protocol):
    """The adapters of one layer. anchor: any tensor that requires a gradient; it gets none."""

    qkv: Adapter
    o: Adapter
    gate_up: Adapter
    down: Adapter
    anchor: Tensor

    @property
    def collecting(self) -> bool:
        """Whether gradients have a place to be written to."""


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of the tokens' positions, `[tokens, 1, head size / 2]`."""

    cos: Tensor
    sin: Tensor

    def turn(self, heads: Tensor) -> Tensor:
        """Rotary embedding (Su et al. 2021, arXiv 2104.09864) of `[tokens, heads, size]`."""
        return self._turned(heads, 1)

    def turn_back(self, heads: Tensor) -> Tensor:
        """The inverse, which is the gradient's way back."""
        return self._turned(heads, -1)

    def _turned(self, heads: Tensor, direction: int) -> Tensor:
        first, second = heads.chunk(2, -1)
        result = torch.empty(heads.shape, dtype=heads.dtype, device=heads.device)
        into_first, into_second = result.chunk(2, -1)
        torch.mul(first, self.cos, out=into_first).addcmul_(second, self.sin, value=-direction)
        torch.mul(second, self.cos, out=into_second).addcmul_(first, self.sin, value=direction)
        return result


class _Norm:
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, norm: Any) -> None:
        self.weight: Tensor = norm.weight
        self.wide_weight = norm.weight.float()
        self.epsilon: float = norm.variance_epsilon

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The normalised rows, and the reciprocal root mean squares `[rows, 1]` in float32."""
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = length.square_().mul_(1 / x.shape[-1]).add_(self.epsilon).rsqrt_()
        return (wide * inverse).to(x.dtype).mul_(self.weight), inverse

    def input_gradient(self, x: Tensor, inverse: Tensor, grad: Tensor) -> Tensor:
        """inverse * (d - h mean(d h)) with h = x inverse, d = grad * weight; in float32."""
        normal = x.float().mul_(inverse)
        wide = grad.float().mul_(self.wide_weight)
        mean = (wide * normal).mean(-1, keepdim=True)
        return wide.addcmul_(normal, mean, value=-1).mul_(inverse)


class _Adapted:
    """Frozen maps of one input, side by side, with their adapters."""

    def __init__(self, *parts: nn.Linear) -> None:
        self.frozen = FrozenLinear(*(part.weight.data for part in parts))
        self.sizes = [part.out_features for part in parts]

    def __call__(self, x: Tensor, adapter: Adapter | None) -> tuple[Tensor, Tensor | None]:
        """`[rows, all outs]`, and what the downs made of x: `[rows, parts * rank]`."""
        y = self.frozen(x)
        if adapter is None:
            return y, None
        squeezed = x @ adapter.down.t()
        for out, low, up in self._parts(y, squeezed, adapter.ups):
            out.addmm_(low, up.t())
        return y, squeezed

    def input_gradient(self, x: Tensor, squeezed: Tensor, adapter: Adapter, grad: Tensor) -> Tensor:
        """The gradient for x; that of the adapter is written into it."""
        assert adapter.down_gradient is not None
        grad_squeezed = torch.empty_like(squeezed)
        for out, low, up in self._parts(grad, grad_squeezed, adapter.ups):
            torch.mm(out, up, out=low)
        for out, low, up in self._parts(grad, squeezed, adapter.up_gradients):
            torch.mm(out.t(), low, out=up)
        torch.mm(grad_squeezed.t(), x, out=adapter.down_gradient)
        return self.frozen.input_gradient(grad).addmm_(grad_squeezed, adapter.down)

    def _parts(self, wide: Tensor, low: Tensor, ups: tuple[Tensor, ...]) -> Any:
        if len(ups) == 1:
            return [(wide, low, ups[0])]
        return zip(torch.split(wide, self.sizes, -1), low.chunk(len(ups), -1), ups, strict=True)


class LlamaLayer:
    """One decoder layer; `layer` is transformers' LlamaDecoderLayer, whose weights are shared."""

    def __init__(self, layer: Any, index: int) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.layer_idx = index
        self.size: int = attention.head_dim
        self.heads = attention.q_proj.out_features // self.size
        self.groups = attention.k_proj.out_features // self.size
        self.scaling: float = attention.scaling
        self.norm_attention = _Norm(layer.input_layernorm)
        self.norm_mlp = _Norm(layer.post_attention_layernorm)
        self.qkv = _Adapted(attention.q_proj, attention.k_proj, attention.v_proj)
        self.o = _Adapted(attention.o_proj)
        self.gate_up = _Adapted(mlp.gate_proj, mlp.up_proj)
        self.down = _Adapted(mlp.down_proj)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation,
        layout: Layout,
        adapters: LayerAdapters | None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """`[tokens, hidden]` to the same; nothing is kept for a gradient.

        wanted: the tokens that the result is of, `[wanted, hidden]`; None for all.
        """
        qkv, _ = self.qkv(self.norm_attention(x)[0], None if adapters is None else adapters.qkv)
        if layout.cache is None and layout.longest <= FOLDED_LONGEST:
            attended = _Attention(self, layout).forward(qkv, rotation)
        else:
            attended = self._attended(qkv, rotation, layout)
        if wanted is not None:
            attended, x = attended.index_select(0, wanted), x.index_select(0, wanted)
        out, _ = self.o(attended, None if adapters is None else adapters.o)
        middle = out.add_(x)
        gate_up, _ = self.gate_up(
            self.norm_mlp(middle)[0], None if adapters is None else adapters.gate_up
        )
        gate, up = gate_up.chunk(2, -1)
        out, _ = self.down(silu(gate).mul_(up), None if adapters is None else adapters.down)
        return out.add_(middle)

    def _attended(self, qkv: Tensor, rotation: Rotation, layout: Layout) -> Tensor:
        """As `_Attention.forward`, of any layout."""
        turned = self.heads + self.groups
        heads = qkv.view(-1, turned + self.groups, self.size)
        qk = rotation.turn(heads[:, :turned])
        attended, _ = packed_attention(
            self,
            qk[:, : self.heads].transpose(0, 1)[None],
            qk[:, self.heads :].transpose(0, 1)[None],
            heads[:, turned:].transpose(0, 1)[None],
            None,
            scaling=self.scaling,
            layout=layout,
        )
        return attended.reshape(qkv.shape[0], -1)

    def trained(
        self,
        x: Tensor,
        rotation: Rotation,
        layout: Layout,
        adapters: LayerAdapters,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """As `forward`, under autograd: the adapters' gradients are written where they lie."""
        result: Tensor = _Trained.apply(
            x, adapters.anchor, self, rotation, layout, adapters, wanted
        )
        return result


class _Trained(torch.autograd.Function):
    """A layer with its gradient by hand. The anchor has autograd call `backward` also where x is
    frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        _anchor: Tensor,
        layer: LlamaLayer,
        rotation: Rotation,
        layout: Layout,
        adapters: LayerAdapters,
        wanted: Tensor | None,
    ) -> Tensor:
        a, inverse_x = layer.norm_attention(x)
        qkv, low_qkv = layer.qkv(a, adapters.qkv)
        attention = _Attention(layer, layout)
        attended = attention.forward(qkv, rotation)
        if wanted is not None:
            attended = attended.index_select(0, wanted)
        out, low_o = layer.o(attended, adapters.o)
        middle = out.add_(x if wanted is None else x.index_select(0, wanted))
        b, inverse_middle = layer.norm_mlp(middle)
        gate_up, low_gate_up = layer.gate_up(b, adapters.gate_up)
        gate, up = gate_up.chunk(2, -1)
        active = silu(gate)
        inner = active * up
        out, low_down = layer.down(inner, adapters.down)
        ctx.save_for_backward(
            x, inverse_x, a, low_qkv, attended, low_o, middle, inverse_middle, b, low_gate_up
        )
        ctx.inner = (gate_up, active, inner, low_down)
        ctx.parts = (layer, rotation, adapters, attention, wanted)
        return out.add_(middle)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        layer, rotation, adapters, attention, wanted = ctx.parts
        # Saved tensors are freed by autograd, these would live as long as the result.
        inner_parts, ctx.inner, ctx.parts = ctx.inner, None, None
        x, inverse_x, a, low_qkv, attended, low_o, middle, inverse_middle, b, low_gate_up = (
            ctx.saved_tensors
        )
        gate_up, active, inner, low_down = inner_parts
        grad_inner = layer.down.input_gradient(inner, low_down, adapters.down, grad)
        gate, up = gate_up.chunk(2, -1)
        grad_gate_up = torch.empty_like(gate_up)
        grad_gate, grad_up = grad_gate_up.chunk(2, -1)
        torch.mul(grad_inner, active, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad_inner.mul_(up), gate, grad_input=grad_gate)
        grad_b = layer.gate_up.input_gradient(b, low_gate_up, adapters.gate_up, grad_gate_up)
        wide = layer.norm_mlp.input_gradient(middle, inverse_middle, grad_b)
        grad_middle = wide.add_(grad).to(grad.dtype)
        grad_attended = layer.o.input_gradient(attended, low_o, adapters.o, grad_middle)
        if wanted is not None:
            every = grad_attended.new_zeros(x.shape[0], grad_attended.shape[1])
            grad_attended = every.index_copy_(0, wanted, grad_attended)
        grad_qkv = attention.backward(grad_attended, rotation)
        grad_a = layer.qkv.input_gradient(a, low_qkv, adapters.qkv, grad_qkv)
        grad_x = None
        if ctx.needs_input_grad[0]:
            wide = layer.norm_attention.input_gradient(x, inverse_x, grad_a)
            if wanted is None:
                wide.add_(grad_middle)
            else:
                wide.index_add_(0, wanted, grad_middle.float())
            grad_x = wide.to(grad.dtype)
        return grad_x, None, None, None, None, None, None


class _Attention:
    """Attention within each row, and its gradient.

    The query heads that share a key head are folded into one product (`packing`).
    """

    def __init__(self, layer: LlamaLayer, layout: Layout) -> None:
        self.layout = layout
        self.groups, self.size, self.scaling = layer.groups, layer.size, layer.scaling
        self.shared = layer.heads // layer.groups
        self.turned = layer.heads + layer.groups

    def forward(self, qkv: Tensor, rotation: Rotation) -> Tensor:
        """`[tokens, q, k and v heads * size]` to `[tokens, heads * size]`."""
        rows, longest = self.layout.rows, self.layout.longest
        heads = qkv.view(-1, self.turned + self.groups, self.size)
        qk = self._spread(rotation.turn(heads[:, : self.turned]))
        self.queries = self._folded(qk[:, :, : -self.groups])
        self.keys = self._sided(qk[:, :, -self.groups :])
        self.values = self._sided(self._spread(heads[:, self.turned :]))
        bias = self.layout.bias(self.shared * self.groups, self.groups, qkv.dtype)
        scores = torch.baddbmm(bias, self.queries, self.keys.transpose(1, 2), alpha=self.scaling)
        # Softmax over 22 numbers takes 0.20 ms in bfloat16 and 0.07 ms in float32, its gradient
        # 0.18 and 0.02.
        self.wide_weights = scores.float().softmax(-1)
        self.weights = self.wide_weights.to(qkv.dtype)
        attended = torch.bmm(self.weights, self.values)
        attended = attended.view(rows, self.groups, self.shared, longest, self.size)
        return self._gathered(attended.permute(0, 3, 1, 2, 4).reshape(rows * longest, -1))

    def backward(self, grad: Tensor, rotation: Rotation) -> Tensor:
        """The gradient for qkv."""
        rows, longest = self.layout.rows, self.layout.longest
        heads = grad.view(grad.shape[0], -1, self.size)
        grad = self._folded(self._spread(heads))
        grad_values = torch.bmm(self.weights.transpose(1, 2), grad)
        grad_weights = torch.bmm(grad, self.values.transpose(1, 2))
        wide = torch._softmax_backward_data(
            grad_weights.float(), self.wide_weights, -1, torch.float32
        )
        scores = wide.mul_(self.scaling).to(grad.dtype)
        grad_queries = torch.bmm(scores, self.keys)
        grad_keys = torch.bmm(scores.transpose(1, 2), self.queries)
        grid = grad.new_empty(rows, longest, self.turned + self.groups, self.size)
        queries = grid[:, :, : -2 * self.groups].view(
            rows, longest, self.groups, self.shared, self.size
        )
        queries.copy_(
            grad_queries.view(rows, self.groups, self.shared, longest, self.size).permute(
                0, 3, 1, 2, 4
            )
        )
        sided = (rows, self.groups, longest, self.size)
        grid[:, :, -2 * self.groups : -self.groups].copy_(grad_keys.view(sided).transpose(1, 2))
        grid[:, :, -self.groups :].copy_(grad_values.view(sided).transpose(1, 2))
        result = self._gathered(grid.view(rows * longest, -1, self.size))
        turned = result[:, : self.turned]
        turned.copy_(rotation.turn_back(turned))
        return result.view(result.shape[0], -1)

    def _spread(self, heads: Tensor) -> Tensor:
        """`[tokens, heads, size]` to `[rows, longest, heads, size]`."""
        layout = self.layout
        if not layout.dense:
            grid = heads.new_zeros(layout.rows * layout.longest, *heads.shape[1:])
            heads = grid.index_copy_(0, layout.slots, heads)
        return heads.reshape(layout.rows, layout.longest, *heads.shape[1:])

    def _gathered(self, grid: Tensor) -> Tensor:
        return grid if self.layout.dense else grid.index_select(0, self.layout.slots)

    def _folded(self, heads: Tensor) -> Tensor:
        """`[rows, longest, heads, size]` to `[rows * groups, shared * longest, size]`."""
        rows, longest = heads.shape[:2]
        parts = heads.view(rows, longest, self.groups, self.shared, self.size)
        return parts.permute(0, 2, 3, 1, 4).reshape(-1, self.shared * longest, self.size)

    def _sided(self, heads: Tensor) -> Tensor:
        """`[rows, longest, groups, size]` to `[rows * groups, longest, size]`."""
        return heads.transpose(1, 2).reshape(-1, self.layout.longest, self.size)


def can_train(layout: Layout) -> bool:
    """Whether `LlamaLayer.trained` knows the layout; longer rows take too much memory this way."""
    return layout.mask is None and layout.cache is None and layout.longest <= FOLDED_LONGEST


def llama_layers(network: Any) -> list[LlamaLayer] | None:
    """The network's layers, or None where they are of another kind or elsewhere than on a CPU."""
    config = network.config
    plain = (
        config.model_type == "llama"
        and config.hidden_act == "silu"
        and not config.attention_bias
        and not config.mlp_bias
        and config.rope_parameters["rope_type"] == "default"
        and network.device.type == "cpu"
        and network.num_parameters() <= MOST_PARAMETERS
    )
    if not plain:
        return None
    return [LlamaLayer(layer, index) for index, layer in enumerate(network.base_model.layers)]


# The packed weights lie beside the network's own, those of trained layers once more for gradients.
MOST_PARAMETERS = 2_000_000_000
