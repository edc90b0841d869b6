"""Training examples: rows as token ids, and the order in which steps see them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tutelage_student.model import Model
from tutelage_student.recipe import Recipe
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


def batches(
    examples: Sequence[Example], recipe: Recipe, total_steps: int, generator: torch.Generator
) -> Iterator[list[Example]]:
    """One batch a step, from a stream of shuffled passes: all full, every row equally often."""
    stream: list[int] = []
    size = min(recipe.batch_rows, len(examples))
    for _ in range(total_steps):
        while len(stream) < size:
            stream += torch.randperm(len(examples), generator=generator).tolist()
        yield [examples[index] for index in stream[:size]]
        del stream[:size]
