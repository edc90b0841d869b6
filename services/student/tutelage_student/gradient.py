"""The gradient of a batch, in forward and backward passes of bounded size."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tutelage_student.activations import ActivationCache
from tutelage_student.examples import Example
from tutelage_student.model import Model
from tutelage_student.recipe import Recipe
from tutelage_student.weights import Weights


def accumulate_gradient(
    model: Model,
    weights: Weights,
    batch: Sequence[Example],
    recipe: Recipe,
    activations: ActivationCache | None,
) -> float:
    """Adds the gradient of the batch's mean loss per completion token; returns that loss.

    Rows are sorted by length, because attention within a micro-batch is padded to the longest.
    """
    completion_tokens = sum(example.completion for example in batch)
    total = 0.0
    ordered = sorted(batch, key=lambda example: len(example.ids))
    for part in micro_batches(ordered, recipe.micro_batch_tokens):
        # The last token is only ever predicted.
        ids, positions, layout = model.packed([example.ids[:-1] for example in part])
        if weights.first_layer and activations is not None:
            below = activations.each(
                model, weights.first_layer, [example.ids[:-1] for example in part]
            )
            hidden = model.hidden(layout, positions, inputs=below, first_layer=weights.first_layer)
        else:
            hidden = model.hidden(layout, positions, ids=ids)
        where, targets = loss_positions(part)
        logits = model.logits(hidden.index_select(0, where.to(model.device)))
        loss = cross_entropy(logits, targets.to(model.device), reduction="sum")
        torch.autograd.backward(loss / completion_tokens)
        weights.collect_gradient()
        total += float(loss.detach())
    return total / completion_tokens


def micro_batches(examples: Sequence[Example], most_tokens: int) -> Iterator[list[Example]]:
    """Runs of examples with at most that many tokens; a longer single one goes alone."""
    part: list[Example] = []
    tokens = 0
    for example in examples:
        if part and tokens + len(example.ids) > most_tokens:
            yield part
            part, tokens = [], 0
        part.append(example)
        tokens += len(example.ids)
    yield part


def loss_positions(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Packed positions that predict a completion token, and those tokens; both `[positions]`."""
    where: list[int] = []
    targets: list[int] = []
    offset = 0
    for example in examples:
        length = len(example.ids) - 1
        where += range(offset + length - example.completion, offset + length)
        targets += example.ids[-example.completion :]
        offset += length
    return torch.tensor(where), torch.tensor(targets)
