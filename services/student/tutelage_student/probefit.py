"""Fitting a probe: the base's features of all rows, then a convex problem, solved to its end."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tutelage_student.errors import invalid
from tutelage_student.model import Model
from tutelage_student.probe import Probe, features
from tutelage_student.questions import BATCH_TOKENS, ask, batches
from tutelage_student.task import Encoder, Row, Task
from tutelage_student.train import Start, Step, Student

# Largest entry of the objective's gradient at which it is solved; the weights are as near. With
# many rows float64 knows no better objective before: with 5000 of 576 features at 4e-6, in 0.3 s.
GRADIENT_TOLERANCE = 1e-8
ITERATIONS_BETWEEN_PAUSES = 20


@dataclass(frozen=True)
class Solution:
    """weight: `[classes, hidden]`; bias: `[classes]`, of sum 0. loss: mean, in nats per row."""

    weight: Tensor
    bias: Tensor
    loss: float
    gradient_norm: float


def fit_probe(
    model: Model,
    rows: Sequence[Row],
    task: Task,
    *,
    start: object | None = None,
    on_start: Callable[[Start], None] = lambda known: None,
    on_step: Callable[[Step], None] = lambda step: None,
    pause: Callable[[], None] = lambda: None,
    between: Callable[[], None] = lambda: None,
) -> Student:
    """Fits a probe to the rows, as one step of training; the order of the rows changes nothing.

    start: a probe changes nothing, since there is one solution; other weights are refused.
    pause, between: as in `fine_tune`, around each batch of features and in the solver.
    """
    if not task.labels:
        raise invalid(
            "recipe.method",
            "probe, but the task has no closed label set",
            "name task.labels, or use lora or full",
        )
    if start is not None and not isinstance(start, Probe):
        raise invalid(
            "start_checkpoint_uri",
            "holds other weights than the recipe trains",
            "leave it out; a probe is solved from the start",
        )
    encoder = Encoder(model.tokenizer, task)
    # Whose company rows are in moves the last bits of their features.
    ordered = sorted(rows, key=lambda row: (row.input, repr(row.messages), row.output))
    questions, left_out = ask(model, encoder, ordered, lambda row: len(encoder.completion(row)))
    if not questions:
        raise invalid("rows", "none to train on", "give at least one row that fits the context")
    for question in questions:
        if question.row.output not in task.labels:
            raise invalid(
                "rows",
                f"row {question.row.id!r} has an output that is none of task.labels",
                "correct it, or name the label",
            )
    too_long = {left_out[place].row_id for place in left_out}
    too_long_row_ids = tuple(row.id for row in rows if row.id in too_long)
    size = len(task.labels) * (model.network.config.hidden_size + 1)
    on_start(Start(len(questions), 1, too_long_row_ids, size))
    began = time.perf_counter()
    parts = []
    for batch in batches(questions, 0, BATCH_TOKENS):
        between()
        parts.append(features(model, batch))
        pause()
    seen = torch.cat(parts)
    mean, scale = standardisation(seen)
    present = [label for label in task.labels if any(q.row.output == label for q in questions)]
    targets = torch.tensor([present.index(question.row.output) for question in questions])

    def pause_in_solver() -> None:
        between()
        pause()

    solution = solve((seen - mean) / scale, targets, len(present), pause_in_solver)
    probe = spread(solution, present, task.labels, len(questions), mean, scale)
    seconds = time.perf_counter() - began
    tokens = sum(len(question.prompt) for question in questions)
    on_step(Step(1, 1, solution.loss, 0.0, tokens / seconds, 0.0, solution.gradient_norm))
    return Student(probe, (solution.loss,), tokens, seconds, too_long_row_ids)


def standardisation(seen: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature; one that is always the same has scale 1."""
    mean = seen.mean(0)
    scale = seen.std(0, correction=0)
    # Rounding of the mean alone must not look like a difference between rows.
    return mean, torch.where(scale > 1e-12 * mean.abs(), scale, 1.0)


def solve(
    x: Tensor, targets: Tensor, classes: int, pause: Callable[[], None] = lambda: None
) -> Solution:
    """Multinomial logistic regression of `[rows, hidden]` float64 as scikit-learn's with C = 1.

    The least of the rows' cross-entropies plus ||weight||² / 2, the bias free. With two classes
    scikit-learn has one weight vector, the difference of ours, whose penalty is twice as much.
    """
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    penalty = 1.0 if classes == 2 else 0.5
    optimizer: torch.optim.Optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS_BETWEEN_PAUSES,
        max_eval=10 * ITERATIONS_BETWEEN_PAUSES,
        tolerance_grad=GRADIENT_TOLERANCE,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def objective() -> float:
        optimizer.zero_grad()
        value = cross_entropy(x @ weight.T + bias, targets, reduction="sum")
        value = value + penalty * weight.square().sum()
        torch.autograd.backward(value)
        return value.item()

    least = float("inf")
    while True:
        optimizer.step(objective)
        pause()
        value = objective()
        gradient = torch.cat([one.grad.flatten() for one in (weight, bias) if one.grad is not None])
        if gradient.abs().max() <= GRADIENT_TOLERANCE or value >= least:
            break
        least = value
    with torch.no_grad():
        bias -= bias.mean()
        loss = float(cross_entropy(x @ weight.T + bias, targets))
    return Solution(weight.detach(), bias.detach(), loss, float(torch.linalg.vector_norm(gradient)))


def spread(
    solution: Solution,
    present: Sequence[str],
    labels: tuple[str, ...],
    rows: int,
    mean: Tensor,
    scale: Tensor,
) -> Probe:
    """The solution as a probe of all labels, those without a row included.

    Nothing is known of these, so that no feature speaks for them, and the free bias would fall for
    ever. As the scores of the others sum to 0, the bias -log(rows + 1) gives such a label less than
    one part in `rows`, and makes it no row's answer.
    """
    weight = torch.zeros(len(labels), mean.numel(), dtype=torch.float64)
    bias = torch.full((len(labels),), -math.log(rows + 1), dtype=torch.float64)
    places = [labels.index(label) for label in present]
    weight[places] = solution.weight
    bias[places] = solution.bias
    return Probe(labels, weight, bias, mean, scale)
