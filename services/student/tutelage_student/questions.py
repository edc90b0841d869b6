"""Rows as what a model is asked, in batches that share a forward pass, and its answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tutelage_student.model import Model
from tutelage_student.task import Encoder, Row

# Packed tokens of one forward pass, for which interactive predictions wait. Rows of 24 tokens: 68/s
# with 256 tokens a pass, 92/s with 1024, 102/s with 2048, 112/s with 4096 (2 cores with AMX).
BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Prediction:
    """One answer. Log-probabilities are natural; those of labels are normalised over the set."""

    row_id: str
    text: str = ""
    log_probability: float = 0.0
    label_log_probabilities: dict[str, float] = field(default_factory=dict)
    too_long: bool = False

    @classmethod
    def of_labels(
        cls, row_id: str, labels: Sequence[str], log_probabilities: Sequence[float]
    ) -> "Prediction":
        """The likeliest label, the first of those that are equally likely."""
        best = max(range(len(labels)), key=log_probabilities.__getitem__)
        by_label = dict(zip(labels, log_probabilities, strict=True))
        return cls(row_id, labels[best], log_probabilities[best], by_label)


@dataclass(frozen=True)
class Question:
    """A row's prompt, as token ids; `index` is the row's place among those given."""

    index: int
    row: Row
    prompt: tuple[int, ...]


def ask(
    model: Model, encoder: Encoder, rows: Sequence[Row], room: Callable[[Row], int]
) -> tuple[list[Question], dict[int, Prediction]]:
    """What to ask, shortest first, and the answers known already, by the row's place.

    room: tokens that the context must hold beside the row's prompt; a row for which it does not is
    answered as too long.
    """
    questions, results = [], {}
    for index, row in enumerate(rows):
        prompt = tuple(encoder.prompt(row))
        if len(prompt) + room(row) > model.context_tokens:
            results[index] = Prediction(row.id, too_long=True)
        else:
            questions.append(Question(index, row, prompt))
    questions.sort(key=lambda question: len(question.prompt))
    return questions, results


def batches(
    questions: Sequence[Question], extra: int, most_tokens: int, most_rows: int | None = None
) -> list[list[Question]]:
    """Runs of questions with at most that many tokens, `extra` a row included."""
    result: list[list[Question]] = [[]]
    tokens = 0
    for question in questions:
        size = len(question.prompt) + extra
        full = tokens + size > most_tokens or len(result[-1]) == most_rows
        if result[-1] and full:
            result.append([])
            tokens = 0
        result[-1].append(question)
        tokens += size
    return result if result[0] else []
