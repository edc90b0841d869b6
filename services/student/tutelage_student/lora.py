"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): y = W x + alpha / rank * B A x.

Our own layer instead of PEFT's: PEFT converts each input to the adapters' float32 and back, layer
by layer; here a copy of the adapters in the base's number format is made once a step.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from tutelage_student.errors import invalid
from tutelage_student.model import Model


class _AdaptedLinear(torch.autograd.Function):
    """The adapted product, base frozen, computed in the base's number format.

    x `[tokens, in]`; down `[rank, in]` and up `[out, rank]` are float32 and get the gradients;
    low_down and low_up (already scaled) are their copies in x's format, which are multiplied with.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        low_down: Tensor,
        low_up: Tensor,
        scale: float,
    ) -> Tensor:
        y = linear(x, weight, bias)
        squeezed = x @ low_down.t()
        y.addmm_(squeezed, low_up.t())
        ctx.save_for_backward(x, squeezed, weight, low_down, low_up)
        ctx.scale = scale
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, squeezed, weight, low_down, low_up = ctx.saved_tensors
        grad_squeezed = grad @ low_up
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight
            grad_x.addmm_(grad_squeezed, low_down)
        grad_down = (grad_squeezed.t() @ x).float()
        grad_up = (grad.t() @ squeezed).float().mul_(ctx.scale)
        return grad_x, None, None, grad_down, grad_up, None, None, None


class LoraLinear(nn.Module):
    """A frozen linear layer that adds an adapter while one is set."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.adapter: LoraAdapter | None = None

    @property
    def weight(self) -> Tensor:
        """The frozen weight; some architectures look at it."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        adapter = self.adapter
        if adapter is None:
            return linear(x, self.base.weight, self.base.bias)
        flat = x.reshape(-1, x.shape[-1])
        if adapter.dropout > 0 and torch.is_grad_enabled():
            y = linear(flat, self.base.weight, self.base.bias)
            squeezed = dropout(flat, adapter.dropout) @ adapter.down.to(x.dtype).t()
            y = y + squeezed @ (adapter.up * adapter.scale).to(x.dtype).t()
        else:
            y = _AdaptedLinear.apply(
                flat,
                self.base.weight,
                self.base.bias,
                adapter.down,
                adapter.up,
                adapter.low_down,
                adapter.low_up,
                adapter.scale,
            )
        return y.view(*x.shape[:-1], -1)


@dataclass
class LoraAdapter:
    """One layer's adapter. down `[rank, in]`, up `[out, rank]`; low_*: their copies to multiply
    with, up already scaled."""

    down: nn.Parameter
    up: nn.Parameter
    low_down: Tensor
    low_up: Tensor
    scale: float
    dropout: float


class SharedInput:
    """Adapters of linear layers that read the same input: one down matrix, an up each.

    down `[parts * rank, in]`, ups `[out, rank]`, already scaled: views of the flat vector in the
    base's format; the gradients are views of another such vector while there is training.
    """

    def __init__(self, low: Tensor, spans: Sequence[tuple[slice, slice]], rank: int) -> None:
        self._spans, self._rank = spans, rank
        self.down, self.ups = self._views(low)
        self.down_gradient: Tensor | None = None
        self.up_gradients: tuple[Tensor, ...] = ()

    def collect_in(self, flat: Tensor | None) -> None:
        """Where gradients are written from now on."""
        if flat is None:
            self.down_gradient, self.up_gradients = None, ()
        else:
            self.down_gradient, self.up_gradients = self._views(flat)

    def _views(self, flat: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        first, last = self._spans[0][0], self._spans[-1][0]
        down = flat[first.start : last.stop].view(self._rank * len(self._spans), -1)
        return down, tuple(flat[up].view(-1, self._rank) for _, up in self._spans)


class LlamaAdapters:
    """The adapters of one of Llama's layers, by the input that they read."""

    def __init__(
        self, low: Tensor, spans: Mapping[str, tuple[slice, slice]], prefix: str, rank: int
    ) -> None:
        def shared(*names: str) -> SharedInput:
            return SharedInput(low, [spans[f"{prefix}.{name}"] for name in names], rank)

        self.qkv = shared("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        self.o = shared("self_attn.o_proj")
        self.gate_up = shared("mlp.gate_proj", "mlp.up_proj")
        self.down = shared("mlp.down_proj")
        self.anchor = torch.zeros((), requires_grad=True)

    @property
    def collecting(self) -> bool:
        """Whether gradients have a place to be written to."""
        return self.down.down_gradient is not None

    def collect_in(self, flat: Tensor | None) -> None:
        """Where gradients are written from now on."""
        for adapter in (self.qkv, self.o, self.gate_up, self.down):
            adapter.collect_in(flat)


class LoraWeights:
    """Adapters on every linear layer of the last `layers` transformer layers.

    All live in one flat float32 vector, so that the optimizer, clipping and averaging are each one
    operation.
    """

    method = "lora"

    def __init__(
        self, model: Model, rank: int, alpha: float, dropout_share: float, trained_layers: int
    ) -> None:
        total = len(model.layers)
        if trained_layers > total:
            raise invalid(
                "recipe.trained_layers", f"{trained_layers} of {total} layers", "use fewer, or 0"
            )
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout_share
        self.first_layer = total - trained_layers if trained_layers else 0
        self.scale = alpha / rank
        bases = dict(_linear_layers(model, self.first_layer))
        count = sum(rank * (base.in_features + base.out_features) for base in bases.values())
        self.flat = torch.zeros(count, device=model.device)
        # Ups are multiplied by alpha / rank, so their gradients are too.
        self._scales = torch.ones(count, device=model.device)
        self._low = torch.zeros(count, device=model.device, dtype=model.dtype)
        self.gradient: Tensor | None = None
        self._low_gradient: Tensor | None = None
        self.adapters: dict[str, LoraAdapter] = {}
        # By layer, for `LlamaLayer`; empty where the model's own layers are used.
        self.llama_adapters: dict[int, LlamaAdapters] = {}
        spans = _spans(bases, rank)
        for name, base in bases.items():
            down, up = spans[name]
            self._scales[up] = self.scale
            shapes = (rank, base.in_features), (base.out_features, rank)
            self.adapters[name] = LoraAdapter(
                nn.Parameter(self.flat[down].view(shapes[0]), requires_grad=False),
                nn.Parameter(self.flat[up].view(shapes[1]), requires_grad=False),
                self._low[down].view(shapes[0]),
                self._low[up].view(shapes[1]),
                self.scale,
                dropout_share,
            )
        if model.llama_layers and not dropout_share:
            names = _layer_names(model)
            for index in range(self.first_layer, total):
                self.llama_adapters[index] = LlamaAdapters(self._low, spans, names[index], rank)

    @property
    def trainable_parameters(self) -> int:
        """Number of weights that training changes."""
        return self.flat.numel()

    def initialise(self, generator: torch.Generator) -> None:
        """A as nn.Linear is initialised, B zero: the start equals the base model (as in PEFT)."""
        for adapter in self.adapters.values():
            bound = 1 / math.sqrt(adapter.down.shape[1])
            drawn = torch.empty(adapter.down.shape).uniform_(-bound, bound, generator=generator)
            adapter.down.data.copy_(drawn)
            adapter.up.data.zero_()
        self.refresh()

    def copy_from(self, other: object) -> None:
        """Continues from another student of the same shape."""
        if (
            not isinstance(other, LoraWeights)
            or (other.rank, other.scale) != (self.rank, self.scale)
            or list(other.adapters) != list(self.adapters)
        ):
            raise invalid(
                "start_checkpoint_uri",
                "holds other weights than the recipe trains",
                "use a checkpoint of a recipe with the same method, rank, alpha and trained_layers",
            )
        self.flat.copy_(other.flat)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Renews the copies that are multiplied with; call after each change of `flat`."""
        self._low.copy_(self.flat * self._scales)

    def begin_training(self) -> Tensor:
        """Lets gradients accumulate in one flat vector, which is returned; None of it is scaled."""
        self.gradient = torch.zeros_like(self.flat)
        if self.llama_adapters:
            self._low_gradient = torch.zeros_like(self._low)
        for layer in self.llama_adapters.values():
            layer.collect_in(self._low_gradient)
        offset = self.flat.storage_offset()
        for adapter in self.adapters.values():
            for parameter in (adapter.down, adapter.up):
                parameter.requires_grad_(True)
                first = parameter.storage_offset() - offset
                span = slice(first, first + parameter.numel())
                parameter.grad = self.gradient[span].view(parameter.shape)
        return self.gradient

    def collect_gradient(self) -> None:
        """Adds what the last backward pass left in the base's format; autograd adds in place."""
        assert self.gradient is not None
        if self._low_gradient is not None:
            self.gradient.addcmul_(self._low_gradient.float(), self._scales)
            # The next pass may be one that leaves nothing here: its rows are long.
            self._low_gradient.zero_()

    def end_training(self) -> None:
        """Frees the gradients."""
        self.gradient = None
        self._low_gradient = None
        for layer in self.llama_adapters.values():
            layer.collect_in(None)
        for adapter in self.adapters.values():
            for parameter in (adapter.down, adapter.up):
                parameter.requires_grad_(False)
                parameter.grad = None

    def put_on(self, model: Model) -> None:
        """Sets the adapters into the model's linear layers."""
        for name, adapter in self.adapters.items():
            _lora_layer(model, name).adapter = adapter

    def take_off(self, model: Model) -> None:
        """Leaves the base model as it was."""
        for name in self.adapters:
            _lora_layer(model, name).adapter = None

    @property
    def size_bytes(self) -> int:
        """Memory that the weights take."""
        return self.flat.nbytes + self._low.nbytes + self._scales.nbytes


def _layer_names(model: Model) -> list[str]:
    """The transformer layers' names in the whole network."""
    names = {id(module): name for name, module in model.network.named_modules()}
    return [names[id(layer)] for layer in model.layers]


def _linear_layers(model: Model, first_layer: int) -> Iterator[tuple[str, nn.Linear]]:
    """Name in the whole network and layer, for every linear layer from `first_layer` on."""
    names = _layer_names(model)
    for prefix, layer in zip(names[first_layer:], model.layers[first_layer:], strict=True):
        for name, module in layer.named_modules():
            if name.endswith(".base"):
                continue
            if isinstance(module, LoraLinear):
                yield f"{prefix}.{name}", module.base
            elif isinstance(module, nn.Linear):
                yield f"{prefix}.{name}", module


def _lora_layer(model: Model, name: str) -> LoraLinear:
    """The wrapped linear layer of that name; wraps it the first time."""
    known: LoraLinear | None = model.wrapped.get(name)
    if known is None:
        parent_name, _, child = name.rpartition(".")
        parent = model.network.get_submodule(parent_name)
        known = LoraLinear(getattr(parent, child))
        setattr(parent, child, known)
        model.wrapped[name] = known
    return known


def _spans(bases: Mapping[str, nn.Linear], rank: int) -> dict[str, tuple[slice, slice]]:
    """Where each layer's down and up lie in the flat vector: within a parent module all downs, then
    all ups, so that those which read the same input are one matrix."""
    spans: dict[str, tuple[slice, slice]] = {}
    offset = 0
    by_parent: dict[str, list[str]] = {}
    for name in bases:
        by_parent.setdefault(name.rpartition(".")[0], []).append(name)
    for siblings in by_parent.values():
        downs = {}
        for name in siblings:
            downs[name] = slice(offset, offset + rank * bases[name].in_features)
            offset = downs[name].stop
        for name in siblings:
            up = slice(offset, offset + rank * bases[name].out_features)
            spans[name] = downs[name], up
            offset = up.stop
    return spans
