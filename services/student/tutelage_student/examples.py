"""Training examples: rows as token ids, and the order in which steps see them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tutelage_student.model import Model
from tutelage_student.task import Encoder, Row


@dataclass(frozen=True)
class Example:
    """A row as training sees it: all token ids, the last `completion` of which bear the loss."""

    ids: tuple[int, ...]
    completion: int


def encode(model: Model, encoder: Encoder, rows: Sequence[Row]) -> tuple[list[Example], list[str]]:
    """The rows as examples, and the ids of those that exceed the model's context."""
    examples, too_long = [], []
    for row in rows:
        completion = encoder.completion(row)
        ids = encoder.prompt(row) + completion
        if len(ids) > model.context_tokens:
            too_long.append(row.id)
        else:
            examples.append(Example(tuple(ids), len(completion)))
    return examples, too_long


class BatchOrder:
    """Which examples each step sees, from a stream of shuffled passes.

    All batches are full, and every example comes equally often. What it goes on from is `waiting`
    and the generator's state.
    """

    def __init__(self, examples: int, batch_rows: int, generator: torch.Generator) -> None:
        self.examples = examples
        self.size = min(batch_rows, examples)
        self.generator = generator
        self.waiting: list[int] = []

    def take(self) -> list[int]:
        """The next batch, as places in the list of examples."""
        while len(self.waiting) < self.size:
            self.waiting += torch.randperm(self.examples, generator=self.generator).tolist()
        batch = self.waiting[: self.size]
        del self.waiting[: self.size]
        return batch
