"""What frozen lower layers say about token sequences, computed once and kept in memory.

What is kept must not depend on what the process did before: a student that was started again must
give the same bits as one that was not. How sequences share a forward pass moves the last bits, so
they share it in a way that follows from the rows of a training or a prediction alone.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from tutelage_student.model import Model
from tutelage_student.packing import Layout

# Of one forward pass for a training: rows of 18 tokens alone take 7 times as long as together.
BLOCK_TOKENS = 1024
# Model, first layer that is not frozen, arrangement, the sequences of one forward pass.
Key = tuple[str, int, Hashable, tuple[tuple[int, ...], ...]]
Packed = tuple[Tensor, Tensor, Layout]


class Arrangement(Hashable, Protocol):
    """How sequences are laid out where they are not plainly causal."""

    def packed(self, model: Model, sequences: Sequence[Sequence[int]]) -> Packed:
        """As `Model.packed`."""


class ActivationCache:
    """Activations below layer n, of some models; least recently used go first.

    With `trained_layers` = k of n layers, all epochs and all trainings on the same rows share what
    the frozen n - k layers compute, and so do all evaluations of the same rows. A row of 20 tokens
    at 576 bfloat16 numbers takes 23 kB.
    """

    def __init__(self, capacity_bytes: int = 1 << 30) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self._stored: OrderedDict[Key, Tensor] = OrderedDict()

    def clear(self) -> None:
        """Forgets everything, for memory that is needed more elsewhere."""
        self._stored.clear()
        self.used_bytes = 0

    def batch(
        self,
        model: Model,
        layer: int,
        sequences: Sequence[Sequence[int]],
        arrangement: Arrangement | None = None,
    ) -> Tensor:
        """`[tokens, hidden]` entering `layer`, the sequences computed together."""
        ids = tuple(tuple(sequence) for sequence in sequences)
        key: Key = (model.source.digest, layer, arrangement, ids)
        kept = self._stored.get(key)
        if kept is None:
            packed = (
                arrangement.packed(model, sequences) if arrangement else model.packed(sequences)
            )
            kept = below(model, layer, packed)
            self._stored[key] = kept
            self.used_bytes += kept.nbytes
            while self.used_bytes > self.capacity_bytes:
                _, oldest = self._stored.popitem(last=False)
                self.used_bytes -= oldest.nbytes
        else:
            self._stored.move_to_end(key)
        return kept


# Kept activations serve trainings too, for which tensors of inference mode are no good.
@torch.inference_mode(False)
@torch.no_grad()
def below(model: Model, layer: int, packed: Packed) -> Tensor:
    """`[tokens, hidden]` entering `layer` of the base model."""
    ids, positions, layout = packed
    with model.wearing(None):
        hidden: Tensor = model.hidden(layout, positions, ids=ids, end_layer=layer)
    return hidden


class Below:
    """What enters `layer` for the sequences that a training reads again and again.

    They are computed in blocks of like lengths, a block when the first of its sequences is asked
    for, and kept in `cache`. Where it has no room for all of them nothing is kept: what is asked
    for together is computed together, each time. sequences: all that will be asked for.
    """

    def __init__(
        self, cache: ActivationCache, model: Model, layer: int, sequences: Sequence[Sequence[int]]
    ) -> None:
        self._cache, self._model, self._layer = cache, model, layer
        self._blocks: list[list[tuple[int, ...]]] = []
        # Of each sequence: its block, and where it lies in it.
        self._places: dict[tuple[int, ...], tuple[int, slice]] = {}
        ordered = sorted({tuple(one) for one in sequences}, key=lambda one: (len(one), one))
        width = model.network.config.hidden_size * model.dtype.itemsize
        self._keeps = sum(map(len, ordered)) * width <= cache.capacity_bytes
        tokens = 0
        for one in ordered:
            if not self._blocks or tokens + len(one) > BLOCK_TOKENS:
                self._blocks.append([])
                tokens = 0
            self._blocks[-1].append(one)
            self._places[one] = len(self._blocks) - 1, slice(tokens, tokens + len(one))
            tokens += len(one)

    def of(
        self, sequences: Sequence[Sequence[int]], between: Callable[[], None] = lambda: None
    ) -> Tensor:
        """`[tokens, hidden]` of these sequences, one behind the other.

        between: called before each block; an exception from it ends the call.
        """
        if not self._keeps:
            between()
            return below(self._model, self._layer, self._model.packed(sequences))
        places = [self._places[tuple(one)] for one in sequences]
        blocks: dict[int, Tensor] = {}
        for block, _ in places:
            if block not in blocks:
                between()
                blocks[block] = self._cache.batch(self._model, self._layer, self._blocks[block])
        return torch.cat([blocks[block][where] for block, where in places])

    def forget(self) -> None:
        """Frees what is kept, for memory that is needed more elsewhere."""
        self._cache.clear()
