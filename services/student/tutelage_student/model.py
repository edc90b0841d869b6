"""A causal language model with frozen base weights, ready to carry a student's weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from tutelage_student.errors import invalid
from tutelage_student.frozenlinear import FrozenLinear, frozen_product
from tutelage_student.llamalayer import Rotation, can_train, llama_layers
from tutelage_student.packing import ATTENTION, Layout, layout_of, positions_of
from tutelage_student.reference import ResolvedModel, resolve


def fastest_base_dtype(device: torch.device) -> torch.dtype:
    """The number format in which frozen weights multiply fastest here.

    Read from the processor's flags, not timed: the choice must be the same in every process, or
    the same seed would give other weights. On Zen 4 (avx512_bf16, no AMX) bfloat16 products reach
    410 GFLOP/s on two cores against 200 in float32; with AMX 2300 against 350. Without either,
    bfloat16 is emulated and slower.
    """
    if device.type == "cuda":
        return torch.bfloat16
    flags = torch.cpu.get_capabilities()
    fast = flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16")
    return torch.bfloat16 if fast else torch.float32


class _PassThrough(nn.Module):
    """Stands where a layer is skipped; keeps what the backbone reads from the layer."""

    def __init__(self, layer: nn.Module | None = None) -> None:
        super().__init__()
        if layer is not None and hasattr(layer, "attention_type"):
            self.attention_type = layer.attention_type

    def forward(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return hidden_states


class Model:
    """The base model, loaded once.

    Weights of a student (`lora.LoraWeights`, `full.FullWeights`) are put on with `wearing` and
    taken off again; the base weights themselves never change.
    """

    def __init__(
        self, source: ResolvedModel, network: Any, tokenizer: Any, device: torch.device
    ) -> None:
        self.source = source
        self.network = network
        self.tokenizer = tokenizer
        self.device = device
        self.dtype: torch.dtype = network.dtype
        self.backbone = network.base_model
        self.head = network.get_output_embeddings()
        layers = getattr(self.backbone, "layers", None)
        if not isinstance(layers, nn.ModuleList) or not isinstance(
            getattr(self.backbone, "norm", None), nn.Module
        ):
            raise invalid(
                "model",
                f"architecture {type(network).__name__} keeps no `layers` and `norm`",
                "use a Llama-like model (Llama, SmolLM, Qwen, Mistral, Gemma)",
            )
        self.layers: list[nn.Module] = list(layers)
        self._all_layers = layers
        self._norm = self.backbone.norm
        self.worn: Any = None
        # Linear layers that can carry adapters, by name (`lora`).
        self.wrapped: dict[str, Any] = {}
        self.llama_layers = llama_layers(network)
        self._frozen_head = FrozenLinear(self.head.weight.data) if self.llama_layers else None

    @property
    def context_tokens(self) -> int:
        """Longest sequence, in tokens."""
        config = self.network.config
        longest = int(config.max_position_embeddings)
        window = getattr(config, "sliding_window", None)
        # The packed attention knows no sliding window; within one window there is no difference.
        return min(longest, int(window)) if window else longest

    @property
    def parameters(self) -> int:
        """Number of base weights; tied ones count once."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @contextmanager
    def wearing(self, weights: Any) -> Iterator[None]:
        """Predicts and trains with `weights` (None: the base weights) inside the block.

        Nests: what was worn before is worn again afterwards.
        """
        before = self.worn
        self._wear(weights)
        try:
            yield
        finally:
            self._wear(before)

    def _wear(self, weights: Any) -> None:
        if weights is self.worn:
            return
        if self.worn is not None:
            self.worn.take_off(self)
        self.worn = weights
        if weights is not None:
            weights.put_on(self)

    def hidden(
        self,
        layout: Layout,
        positions: Tensor,
        ids: Tensor | None = None,
        inputs: Tensor | None = None,
        first_layer: int = 0,
        end_layer: int | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Runs layers `first_layer` to before `end_layer` (None: all, and the final norm).

        ids: `[tokens]`, or inputs: `[tokens, hidden]`, what enters the first layer.
        wanted: indices of the tokens that the result is of; None for all. Most of the last layer is
        spared the others.
        Returns `[tokens or wanted, hidden]`.
        """
        if self._llama_can(layout):
            return self._llama_hidden(
                layout, positions, ids, inputs, first_layer, end_layer, wanted
            )
        with self._only_layers(first_layer, end_layer):
            result = self.backbone(
                input_ids=None if ids is None else ids[None],
                inputs_embeds=None if inputs is None else inputs[None],
                position_ids=positions[None],
                use_cache=False,
                layout=layout,
            )
        hidden: Tensor = result.last_hidden_state[0]
        return hidden if wanted is None else hidden.index_select(0, wanted)

    def _llama_can(self, layout: Layout) -> bool:
        """Whether what is worn, and this layout, are known to our own layers."""
        if self.llama_layers is None:
            return False
        if self.worn is not None and not getattr(self.worn, "llama_adapters", None):
            return False
        return can_train(layout) or not torch.is_grad_enabled()

    def _llama_hidden(
        self,
        layout: Layout,
        positions: Tensor,
        ids: Tensor | None,
        inputs: Tensor | None,
        first_layer: int,
        end_layer: int | None,
        wanted: Tensor | None,
    ) -> Tensor:
        assert self.llama_layers is not None
        x = self.network.get_input_embeddings()(ids) if inputs is None else inputs
        cos, sin = self.backbone.rotary_emb(x, positions[None])
        half = cos.shape[-1] // 2
        rotation = Rotation(cos[0, :, None, :half], sin[0, :, None, :half])
        worn = {} if self.worn is None else self.worn.llama_adapters
        layers = self.llama_layers[first_layer:end_layer]
        for layer in layers:
            adapters = worn.get(layer.layer_idx)
            only = wanted if layer is layers[-1] else None
            if adapters is not None and adapters.collecting and torch.is_grad_enabled():
                x = layer.trained(x, rotation, layout, adapters, only)
            else:
                x = layer.forward(x, rotation, layout, adapters, only)
        if end_layer is None:
            x = self._norm(x)
        return x

    @contextmanager
    def _only_layers(self, first: int, end: int | None) -> Iterator[None]:
        if first == 0 and end is None:
            yield
            return
        self.backbone.layers = nn.ModuleList(
            layer
            if first <= index < (len(self.layers) if end is None else end)
            else _PassThrough(layer)
            for index, layer in enumerate(self.layers)
        )
        if end is not None:
            self.backbone.norm = _PassThrough()
        try:
            yield
        finally:
            self.backbone.layers = self._all_layers
            self.backbone.norm = self._norm

    def logits(self, hidden: Tensor) -> Tensor:
        """`[positions, hidden]` after the final norm to `[positions, vocabulary]`, float32."""
        if self._frozen_head is not None and getattr(self.worn, "method", "lora") == "lora":
            logits = frozen_product(hidden, self._frozen_head).float()
        else:
            logits = self.head(hidden).float()
        cap = getattr(self.network.config, "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits

    def packed(self, sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Layout]:
        """Token ids `[tokens]`, positions `[tokens]` and the layout of these sequences."""
        lengths = [len(sequence) for sequence in sequences]
        ids = torch.tensor([token for sequence in sequences for token in sequence])
        return (
            ids.to(self.device),
            positions_of(lengths).to(self.device),
            layout_of(lengths).to(self.device),
        )


def load(
    reference: str,
    home: Path,
    *,
    allow_hub: bool = False,
    device: str | None = None,
    dtype: torch.dtype | None = None,
) -> Model:
    """Loads a model's frozen base weights. `dtype` None takes the fastest for the device."""
    source = resolve(reference, home, allow_hub)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network: Any = AutoModelForCausalLM.from_pretrained(
        source.folder,
        dtype=dtype or fastest_base_dtype(where),
        attn_implementation=ATTENTION,
        local_files_only=True,
    )
    network.to(where).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    return Model(source, network, tokenizer, where)
