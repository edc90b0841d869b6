"""What frozen lower layers say about token sequences, computed once and kept in memory.

What is kept must not depend on what the process did before: a student that was started again must
give the same bits as one that was not. How sequences share a forward pass moves the last bits, so
training keeps each sequence alone, and predictions keep whole batches, which follow from their
rows.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from tutelage_student.model import Model
from tutelage_student.packing import Layout

# Model, first layer that is not frozen, arrangement, the sequences of one forward pass.
Key = tuple[str, int, Hashable, tuple[tuple[int, ...], ...]]
Packed = tuple[Tensor, Tensor, Layout]


class Arrangement(Hashable, Protocol):
    """How sequences are laid out where they are not plainly causal."""

    def packed(self, model: Model, sequences: Sequence[Sequence[int]]) -> Packed:
        """As `Model.packed`."""


class ActivationCache:
    """Activations below layer n, of some models; least recently used go first.

    With `trained_layers` = k of n layers, all epochs, all trainings and all folds share what the
    frozen n - k layers compute, and so do all evaluations of the same rows. A row of 20 tokens at
    576 bfloat16 numbers takes 23 kB.
    """

    def __init__(self, capacity_bytes: int = 1 << 30) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self._stored: OrderedDict[Key, Tensor] = OrderedDict()

    def clear(self) -> None:
        """Forgets everything, for memory that is needed more elsewhere."""
        self._stored.clear()
        self.used_bytes = 0

    def each(self, model: Model, layer: int, sequences: Sequence[Sequence[int]]) -> Tensor:
        """`[tokens, hidden]` entering `layer`, every sequence computed alone.

        On a CPU that costs 2.8 times as much as together, once.
        """
        return torch.cat(
            [self._below(model, layer, None, [sequence], model.packed) for sequence in sequences]
        )

    def batch(
        self,
        model: Model,
        layer: int,
        sequences: Sequence[Sequence[int]],
        arrangement: Arrangement,
    ) -> Tensor:
        """`[tokens, hidden]` entering `layer`, the sequences computed together."""

        def packed(together: Sequence[Sequence[int]]) -> Packed:
            return arrangement.packed(model, together)

        return self._below(model, layer, arrangement, sequences, packed)

    # Kept activations serve trainings too, for which tensors of inference mode are no good.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _below(
        self,
        model: Model,
        layer: int,
        arrangement: Arrangement | None,
        sequences: Sequence[Sequence[int]],
        packed: Callable[[Sequence[Sequence[int]]], Packed],
    ) -> Tensor:
        ids = tuple(tuple(sequence) for sequence in sequences)
        key: Key = (model.source.digest, layer, arrangement, ids)
        kept = self._stored.get(key)
        if kept is None:
            tokens, positions, layout = packed(sequences)
            with model.wearing(None):
                kept = model.hidden(layout, positions, ids=tokens, end_layer=layer)
            self._stored[key] = kept
            self.used_bytes += kept.nbytes
            while self.used_bytes > self.capacity_bytes:
                _, oldest = self._stored.popitem(last=False)
                self.used_bytes -= oldest.nbytes
        else:
            self._stored.move_to_end(key)
        return kept
