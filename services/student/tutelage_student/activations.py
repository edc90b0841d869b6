"""What frozen lower layers say about a row, computed once and kept in memory."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from tutelage_student.model import Model
from tutelage_student.packing import Layout

# Tokens of one forward pass when filling: enough to keep the matrix products busy.
FILL_TOKENS = 2048


Key = tuple[str, int, Hashable, tuple[int, ...]]


class Arrangement(Hashable, Protocol):
    """How sequences are laid out where they are not plainly causal."""

    def packed(
        self, model: Model, sequences: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor, Layout]:
        """As `Model.packed`."""


class ActivationCache:
    """Activations below layer n of token sequences, of one model; least recently used go first.

    With `trained_layers` = k of n layers, all epochs, all trainings and all folds share what the
    frozen n - k layers compute. A row of 20 tokens at 576 bfloat16 numbers takes 23 kB.
    """

    def __init__(self, capacity_bytes: int = 1 << 30) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self._stored: OrderedDict[Key, Tensor] = OrderedDict()

    # Kept activations serve trainings too, for which tensors of inference mode are no good.
    @torch.inference_mode(False)
    @torch.no_grad()
    def below(
        self,
        model: Model,
        layer: int,
        sequences: Sequence[Sequence[int]],
        arrangement: Arrangement | None = None,
    ) -> list[Tensor]:
        """`[length, hidden]` entering `layer`, for each token sequence."""
        packed = model.packed if arrangement is None else partial(arrangement.packed, model)
        keys: list[Key] = [
            (model.source.digest, layer, arrangement, tuple(sequence)) for sequence in sequences
        ]
        found = {key: self._stored[key] for key in keys if key in self._stored}
        missing = sorted({key for key in keys if key not in found}, key=lambda key: len(key[3]))
        while missing:
            batch: list[Key] = []
            tokens = 0
            while missing and (not batch or tokens + len(missing[-1][3]) <= FILL_TOKENS):
                batch.append(missing.pop())
                tokens += len(batch[-1][3])
            ids, positions, layout = packed([key[3] for key in batch])
            with model.wearing(None):
                hidden = model.hidden(layout, positions, ids=ids, end_layer=layer)
            parts = torch.split(hidden, [len(key[3]) for key in batch])
            for key, part in zip(batch, parts, strict=True):
                found[key] = part.clone()
                self._store(key, found[key])
        for key in keys:
            if key in self._stored:
                self._stored.move_to_end(key)
        return [found[key] for key in keys]

    def _store(self, key: Key, value: Tensor) -> None:
        self._stored[key] = value
        self.used_bytes += value.nbytes
        while self.used_bytes > self.capacity_bytes:
            _, oldest = self._stored.popitem(last=False)
            self.used_bytes -= oldest.nbytes
