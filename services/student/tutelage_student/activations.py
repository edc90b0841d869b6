"""What frozen lower layers say about a row, computed once and kept in memory."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage_student.model import Model

# Tokens of one forward pass when filling: enough to keep the matrix products busy.
FILL_TOKENS = 2048


class ActivationCache:
    """Activations below layer n of token sequences, of one model; least recently used go first.

    With `trained_layers` = k of n layers, all epochs, all trainings and all folds share what the
    frozen n - k layers compute. A row of 20 tokens at 576 bfloat16 numbers takes 23 kB.
    """

    def __init__(self, capacity_bytes: int = 1 << 30) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self._stored: OrderedDict[tuple[str, int, tuple[int, ...]], Tensor] = OrderedDict()

    @torch.no_grad()
    def below(self, model: Model, layer: int, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """`[length, hidden]` entering `layer`, for each plainly causal token sequence."""
        keys = [(model.source.digest, layer, tuple(sequence)) for sequence in sequences]
        found = {key: self._stored[key] for key in keys if key in self._stored}
        missing = sorted({key for key in keys if key not in found}, key=lambda key: len(key[2]))
        while missing:
            batch: list[tuple[str, int, tuple[int, ...]]] = []
            tokens = 0
            while missing and (not batch or tokens + len(missing[-1][2]) <= FILL_TOKENS):
                batch.append(missing.pop())
                tokens += len(batch[-1][2])
            ids, positions, layout = model.packed([key[2] for key in batch])
            with model.wearing(None):
                hidden = model.hidden(layout, positions, ids=ids, end_layer=layer)
            parts = torch.split(hidden, [len(key[2]) for key in batch])
            for key, part in zip(batch, parts, strict=True):
                found[key] = part.clone()
                self._store(key, found[key])
        for key in keys:
            if key in self._stored:
                self._stored.move_to_end(key)
        return [found[key] for key in keys]

    def _store(self, key: tuple[str, int, tuple[int, ...]], value: Tensor) -> None:
        self._stored[key] = value
        self.used_bytes += value.nbytes
        while self.used_bytes > self.capacity_bytes:
            _, oldest = self._stored.popitem(last=False)
            self.used_bytes -= oldest.nbytes
