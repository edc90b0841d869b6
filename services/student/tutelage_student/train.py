"""Fine-tuning, from the base weights, top to bottom."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tutelage_student.activations import ActivationCache
from tutelage_student.errors import invalid
from tutelage_student.full import FullWeights
from tutelage_student.lora import LoraWeights
from tutelage_student.model import Model
from tutelage_student.recipe import Recipe
from tutelage_student.task import Encoder, Row, Task

Weights: TypeAlias = LoraWeights | FullWeights


@dataclass(frozen=True)
class Example:
    """A row as training sees it: all token ids, the last `completion` of which bear the loss."""

    ids: tuple[int, ...]
    completion: int


@dataclass(frozen=True)
class Start:
    """What is known before the first step."""

    rows: int
    total_steps: int
    too_long_row_ids: tuple[str, ...]
    trainable_parameters: int


@dataclass(frozen=True)
class Step:
    """One optimizer step. loss: nats per completion token; tokens are counted without padding."""

    step: int
    total_steps: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    eta_seconds: float
    grad_norm: float


@dataclass(frozen=True)
class Student:
    """A fine-tuned student in memory."""

    weights: Weights
    losses: tuple[float, ...]
    trained_tokens: int
    seconds: float
    too_long_row_ids: tuple[str, ...]

    @property
    def final_loss(self) -> float:
        """Mean loss of the last tenth of the steps, in nats per completion token."""
        last = self.losses[-max(1, len(self.losses) // 10) :]
        return sum(last) / len(last)


def fine_tune(
    model: Model,
    rows: Sequence[Row],
    task: Task,
    recipe: Recipe,
    seed: int,
    *,
    start: Weights | None = None,
    activations: ActivationCache | None = None,
    on_start: Callable[[Start], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Student:
    """Trains a student and returns its weights; the base weights stay as they are.

    The same arguments on the same number of threads give the same weights bit for bit.

    start: weights to continue from, instead of the base; they are copied.
    activations: shared over trainings, used where lower layers are frozen.
    on_step: called after each optimizer step, when the model may be used for something else; an
    exception from it ends the training.
    """
    encoder = Encoder(model.tokenizer, task)
    examples, too_long = encode(model, encoder, rows)
    if not examples:
        raise invalid("rows", "none to train on", "give at least one row that fits the context")
    generator = torch.Generator().manual_seed(seed % 2**63)
    # Dropout draws from the global stream; nothing else here does.
    torch.manual_seed(seed % 2**63)
    weights = new_weights(model, recipe)
    if start is None:
        weights.initialise(generator)
    else:
        weights.copy_from(start)
    total = recipe.total_steps(len(examples))
    if on_start:
        on_start(Start(len(examples), total, tuple(too_long), weights.trainable_parameters))

    gradient = weights.begin_training()
    flat = torch.nn.Parameter(weights.flat)
    flat.grad = gradient
    optimizer = torch.optim.AdamW(
        [flat], lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    averaged_from = total - round(recipe.average_share * total) + 1
    mean: Tensor | None = None
    if weights.first_layer:
        activations = activations or ActivationCache()
    losses: list[float] = []
    tokens = 0
    began = time.perf_counter()
    busy = 0.0
    try:
        for step, batch in enumerate(batches(examples, recipe, total, generator), start=1):
            step_began = time.perf_counter()
            with model.wearing(weights):
                loss = accumulate_gradient(model, weights, batch, recipe, activations)
            norm = float(torch.linalg.vector_norm(gradient))
            if norm > recipe.max_grad_norm:
                gradient.mul_(recipe.max_grad_norm / norm)
            rate = recipe.learning_rate_at(step, total)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
            gradient.zero_()
            weights.refresh()
            if step >= averaged_from:
                share = 1 / (step - averaged_from + 1)
                mean = weights.flat.clone() if mean is None else mean.lerp_(weights.flat, share)
            losses.append(loss)
            tokens += sum(len(example.ids) for example in batch)
            busy += time.perf_counter() - step_began
            if on_step:
                eta = (total - step) * busy / step
                on_step(Step(step, total, loss, rate, tokens / busy, eta, norm))
    finally:
        weights.end_training()
    if mean is not None:
        weights.flat.copy_(mean)
        weights.refresh()
    seconds = time.perf_counter() - began
    return Student(weights, tuple(losses), tokens, seconds, tuple(too_long))


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


def new_weights(model: Model, recipe: Recipe) -> Weights:
    """Trainable weights as the recipe wants them, not yet initialised."""
    if recipe.method == "full":
        return FullWeights(model, recipe.trained_layers)
    return LoraWeights(
        model, recipe.lora_rank, recipe.lora_alpha, recipe.lora_dropout, recipe.trained_layers
    )


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
