"""Fine-tuning, from the base weights, top to bottom."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage_student.activations import ActivationCache
from tutelage_student.errors import invalid
from tutelage_student.examples import batches, encode
from tutelage_student.gradient import accumulate_gradient
from tutelage_student.model import Model
from tutelage_student.recipe import Recipe
from tutelage_student.task import Encoder, Row, Task
from tutelage_student.weights import Weights, new_weights


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
