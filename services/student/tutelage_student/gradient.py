"""The gradient of a batch, in forward and backward passes of bounded size."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tutelage_student.activations import Below
from tutelage_student.examples import Example
from tutelage_student.model import Model
from tutelage_student.weights import Weights


def accumulate_gradient(
    model: Model,
    weights: Weights,
    batch: Sequence[Example],
    micro_batch_tokens: int,
    below: Below | None,
    between: Callable[[], None] = lambda: None,
) -> float:
    """Adds the gradient of the batch's mean loss per completion token; returns that loss.

    below: what enters the trained layers, where layers below them are frozen.
    between: called before each forward pass; an exception from it ends the training.
    """
    completion_tokens = sum(example.completion for example in batch)
    total = 0.0
    for part in micro_batches(batch, micro_batch_tokens):
        between()
        # The last token is only ever predicted.
        ids, positions, layout = model.packed([example.ids[:-1] for example in part])
        where, targets = loss_positions(part)
        where = where.to(model.device)
        if below is not None:
            inputs = below.of([example.ids[:-1] for example in part], between)
            hidden = model.hidden(
                layout, positions, inputs=inputs, first_layer=weights.first_layer, wanted=where
            )
        else:
            hidden = model.hidden(layout, positions, ids=ids, wanted=where)
        logits = model.logits(hidden)
        loss = cross_entropy(logits, targets.to(model.device), reduction="sum")
        torch.autograd.backward(loss / completion_tokens)
        weights.collect_gradient()
        total += float(loss.detach())
        # Else they live beside the next part's.
        del hidden, logits, loss
    return total / completion_tokens


def micro_batches(batch: Sequence[Example], most_tokens: int) -> Iterator[list[Example]]:
    """The batch in parts of at most that many tokens; a longer single example goes alone.

    Sorted by length, because attention within a part is padded to its longest.
    """
    part: list[Example] = []
    tokens = 0
    for example in sorted(batch, key=lambda example: len(example.ids)):
        if part and tokens + len(example.ids) > most_tokens:
            yield part
            part, tokens = [], 0
        part.append(example)
        tokens += len(example.ids)
    yield part


def halved(batch: Sequence[Example], most_tokens: int) -> int:
    """Half of the largest micro-batch that can be split, in tokens; 0 where none can."""
    splittable = [
        sum(len(example.ids) for example in part)
        for part in micro_batches(batch, most_tokens)
        if len(part) > 1
    ]
    return max(splittable, default=0) // 2


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
