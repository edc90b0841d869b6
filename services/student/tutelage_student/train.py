"""Fine-tuning, from the base weights, top to bottom."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tutelage_student.activations import ActivationCache, Below
from tutelage_student.errors import invalid
from tutelage_student.examples import BatchOrder, Example, encode
from tutelage_student.gradient import accumulate_gradient, halved
from tutelage_student.memory import is_out_of_memory, out_of_memory
from tutelage_student.model import Model
from tutelage_student.recipe import Recipe
from tutelage_student.resumepoint import Resumption, identity
from tutelage_student.task import Encoder, Row, Task
from tutelage_student.trainingstate import TrainingState
from tutelage_student.weights import StudentWeights, new_weights


@dataclass(frozen=True)
class Start:
    """What is known before the first step.

    resumed_step: the step after which a resume point is gone on from; 0 at the start.
    unusable_points: why resume points were passed over, newest first.
    """

    rows: int
    total_steps: int
    too_long_row_ids: tuple[str, ...]
    trainable_parameters: int
    resumed_step: int = 0
    unusable_points: tuple[str, ...] = ()


@dataclass(frozen=True)
class SmallerMicroBatch:
    """Memory did not suffice in `step`, which is made again in micro-batches of fewer tokens."""

    step: int
    from_tokens: int
    to_tokens: int


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

    weights: StudentWeights
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
    start: StudentWeights | None = None,
    activations: ActivationCache | None = None,
    resumption: Resumption | None = None,
    on_start: Callable[[Start], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_smaller: Callable[[SmallerMicroBatch], None] | None = None,
    pause: Callable[[], None] = lambda: None,
    between: Callable[[], None] = lambda: None,
) -> Student:
    """Trains a student and returns its weights; the base weights stay as they are.

    The same arguments on the same number of threads, with the same room for activations, give the
    same weights bit for bit, also where a training goes on from a resume point.

    start: weights to continue from, instead of the base; they are copied.
    activations: shared over trainings, used where lower layers are frozen.
    resumption: what to go on from, and where to leave points; None neither.
    on_step: called after each optimizer step, when the model may be used for something else.
    pause: called after that, when a resume point was left if one was due.
    between: called before each forward pass, when the model must be left alone.
    An exception from any of them ends the training.

    Raises RESOURCE_EXHAUSTED where memory does not suffice for one row at a time.
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
    order = BatchOrder(len(examples), recipe.batch_rows, generator)
    state = TrainingState(weights, recipe, order, total)
    below = None
    if weights.first_layer:
        read = [example.ids[:-1] for example in examples]
        below = Below(activations or ActivationCache(), model, weights.first_layer, read)
    began = time.perf_counter()
    try:
        unusable: list[str] = []
        if resumption:
            training = identity(model, examples, recipe, seed, state)
            unusable = resumption.begin(state, training)
        if on_start:
            size = weights.trainable_parameters
            on_start(
                Start(len(examples), total, tuple(too_long), size, state.step, tuple(unusable))
            )
        while state.step < total:
            step = state.step + 1
            step_began = time.perf_counter()
            batch = [examples[place] for place in order.take()]
            loss = _gradient_in_memory(model, state, batch, below, on_smaller, between)
            norm = float(torch.linalg.vector_norm(state.gradient))
            if norm > recipe.max_grad_norm:
                state.gradient.mul_(recipe.max_grad_norm / norm)
            rate = recipe.learning_rate_at(step, total)
            state.optimizer.param_groups[0]["lr"] = rate
            state.optimizer.step()
            state.gradient.zero_()
            weights.refresh()
            state.step = step
            state.average()
            state.losses.append(loss)
            state.tokens += sum(len(example.ids) for example in batch)
            state.busy_seconds += time.perf_counter() - step_began
            if on_step:
                busy = state.busy_seconds
                eta = (total - step) * busy / step
                on_step(Step(step, total, loss, rate, state.tokens / busy, eta, norm))
            if resumption and step < total:
                resumption.after_step(state)
            pause()
    finally:
        weights.end_training()
    if state.mean is not None:
        weights.flat.copy_(state.mean)
        weights.refresh()
    seconds = time.perf_counter() - began
    return Student(weights, tuple(state.losses), state.tokens, seconds, tuple(too_long))


def _gradient_in_memory(
    model: Model,
    state: TrainingState,
    batch: Sequence[Example],
    below: Below | None,
    on_smaller: Callable[[SmallerMicroBatch], None] | None,
    between: Callable[[], None],
) -> float:
    """The batch's gradient and loss, in micro-batches as small as the memory asks for.

    Each try begins with no gradient and the same random streams, so that it is the gradient of a
    training that had the smaller micro-batches from this step on.
    """
    streams = state.random_streams()
    while True:
        try:
            with model.wearing(state.weights):
                return accumulate_gradient(
                    model, state.weights, batch, state.micro_batch_tokens, below, between
                )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Not in the handler: while the error lives, its frames keep the tensors.
        state.gradient.zero_()
        state.set_random_streams(streams)
        if below is not None:
            below.forget()
        if model.device.type == "cuda":
            torch.cuda.empty_cache()
        before = state.micro_batch_tokens
        state.micro_batch_tokens = halved(batch, before)
        if not state.micro_batch_tokens:
            longest = max(len(example.ids) for example in batch)
            raise out_of_memory(
                "recipe.micro_batch_tokens",
                f"with one row of up to {longest} tokens at a time",
                "shorten the rows, train fewer layers, or use a machine with more memory",
            )
        if on_smaller:
            on_smaller(SmallerMicroBatch(state.step + 1, before, state.micro_batch_tokens))
