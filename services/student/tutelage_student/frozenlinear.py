"""A frozen linear map, kept in the form in which the processor multiplies fastest."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

# Weights are packed for about this many rows; other numbers of rows give the same results.
PACKED_FOR_ROWS = 256


class FrozenLinear:
    """y = x W^T for a weight `[out, in]` that never changes, given in parts `[some outs, in]`.

    oneDNN brings a weight into its own order before each product. With few rows that costs as much
    as the product: 144 rows by 576 x 1536 take 0.51 ms, with the weight in that order 0.36 ms; 16
    rows by 576 x 49152 take 7.1 and 2.8 ms (AMX, one core). So the order is made once, and a second
    time for gradients, when one is first asked for.
    """

    def __init__(self, *parts: Tensor) -> None:
        self._parts = parts
        weight = self._whole()
        self._forward = _packed(weight)
        # Beside the packed weight it is not kept.
        self._plain = weight if self._forward is None else None
        self._backward: Tensor | None = None

    def _whole(self) -> Tensor:
        return self._parts[0] if len(self._parts) == 1 else torch.cat(self._parts)

    def __call__(self, x: Tensor) -> Tensor:
        """`[rows, in]` to `[rows, out]`."""
        if self._plain is not None:
            return linear(x, self._plain)
        return _product(x, self._forward)

    def input_gradient(self, grad: Tensor) -> Tensor:
        """`[rows, out]` to `[rows, in]`: the gradient for x."""
        if self._plain is not None:
            return grad @ self._plain
        if self._backward is None:
            self._backward = _packed(self._whole().t().contiguous())
        return _product(grad, self._backward)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: FrozenLinear) -> Tensor:
        ctx.frozen = frozen
        return frozen(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return ctx.frozen.input_gradient(grad), None


def frozen_product(x: Tensor, frozen: FrozenLinear) -> Tensor:
    """`frozen(x)` with a gradient for x."""
    y: Tensor = _Product.apply(x, frozen)
    return y


def _packed(weight: Tensor) -> Tensor | None:
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return None
    if weight.dtype != torch.bfloat16:
        # In float32 MKL multiplies, which packs blocks as it goes.
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR_ROWS)
    return packed


def _product(x: Tensor, packed: Any) -> Tensor:
    # The operation by which torch.compile multiplies with frozen weights on CPUs.
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    return y
