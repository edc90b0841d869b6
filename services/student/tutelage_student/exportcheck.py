"""Whether an exported student answers as the measured one, asked by plain transformers and PEFT.

Nothing of our own arithmetic takes part on the exported side: the files are loaded as their user
will load them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from tutelage_student.model import Model
from tutelage_student.predict import DEFAULT_ANSWER_TOKENS, Decoding, generate, score_labels
from tutelage_student.task import Encoder, Row
from tutelage_student.weights import Weights

# Nats. On SmolLM2-135M merging in float32 moves a label's log-probability by 7e-7, and a student
# that was measured in bfloat16 differs from its float32 files by 0.005; merged weights that are
# kept in bfloat16 have 8 bits each.
TOLERANCES = {"float32": 0.01, "bfloat16": 0.25, "float16": 0.05}
# Label sequences of one forward pass.
LABELS_A_PASS = 32
# Tokens of a free text that are compared.
MOST_ANSWER_TOKENS = 64


@dataclass(frozen=True)
class Comparison:
    """Two ways to run one student; differences and tolerance in nats."""

    reference: str
    compared: str
    same_answers: int
    max_log_probability_difference: float
    tolerance: float
    passed: bool


@dataclass(frozen=True)
class Check:
    """What the check found on `rows` rows."""

    passed: bool
    rows: int
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Answer:
    """What one way of running the student says to a row.

    text: its label; without labels, the measured student's greedy text. scores: log-probability of
    every label, normalised over the set; without labels, that of the text, a token. gap: without
    labels, how far, in nats, the text's least likely token is from the one that is likeliest
    there: 0 where greedy decoding writes just this text.
    """

    text: str
    scores: dict[str, float]
    gap: float = 0.0


def sample(rows: Sequence[Row], most: int) -> list[Row]:
    """At most that many rows, evenly spaced."""
    count = min(most, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]


def check(
    model: Model,
    encoder: Encoder,
    weights: Weights,
    adapter: Path | None,
    merged: Path | None,
    rows: Sequence[Row],
    dtype: str,
    pause: Callable[[], None],
) -> Check:
    """Asks the measured student, the adapter by PEFT, and the merged weights by transformers.

    adapter: folder with adapter_model.safetensors; None where all weights were trained. merged:
    folder with the merged weights; None lets PEFT merge in memory. dtype: number format of the
    merged weights.
    """
    measured_dtype = str(model.dtype).removeprefix("torch.")
    student = _measured(model, encoder, weights, rows, pause)
    asked = [row for row in rows if row.id in student]
    comparisons: list[Comparison] = []
    network: Any = None
    if adapter is not None:
        from peft import PeftModel

        base = _load(model.source.folder, model)
        base_dtype = str(base.dtype).removeprefix("torch.")
        network = PeftModel.from_pretrained(base, str(adapter)).eval()
        by_adapter = _plain(network, model, encoder, asked, student, pause)
        tolerance = max(_tolerance(measured_dtype), _tolerance(base_dtype))
        comparisons.append(compare("student", student, "adapter", by_adapter, tolerance))
        if merged is None:
            network = network.merge_and_unload()
            by_merged = _plain(network, model, encoder, asked, student, pause)
            tolerance = _tolerance(base_dtype)
            comparisons.append(compare("adapter", by_adapter, "merged", by_merged, tolerance))
    if merged is not None:
        # One plain copy in memory at a time.
        network = None
        network = _load(merged, model)
        by_merged = _plain(network, model, encoder, asked, student, pause)
        if adapter is not None:
            tolerance = max(_tolerance(base_dtype), _tolerance(dtype))
            comparisons.append(compare("adapter", by_adapter, "merged", by_merged, tolerance))
        tolerance = max(_tolerance(measured_dtype), _tolerance(dtype))
        comparisons.append(compare("student", student, "merged", by_merged, tolerance))
    passed = all(comparison.passed for comparison in comparisons)
    return Check(passed and bool(asked), len(asked), tuple(comparisons))


def compare(
    reference: str,
    known: dict[str, Answer],
    compared: str,
    other: dict[str, Answer],
    tolerance: float,
) -> Comparison:
    """Answers row by row. Two that the reference finds alike within the tolerance, a tie, are the
    same answer."""
    same = 0
    largest = 0.0
    for row_id, answer in other.items():
        expected = known[row_id]
        for label in {expected.text, answer.text}:
            largest = max(largest, abs(expected.scores[label] - answer.scores[label]))
        lead = expected.scores[expected.text] - expected.scores[answer.text]
        same += lead <= tolerance and answer.gap <= expected.gap + tolerance
    passed = same == len(other) and largest <= tolerance
    return Comparison(reference, compared, same, largest, tolerance, passed)


def _measured(
    model: Model,
    encoder: Encoder,
    weights: Weights,
    rows: Sequence[Row],
    pause: Callable[[], None],
) -> dict[str, Answer]:
    """What our own arithmetic answers, by row; rows that are too long are left out."""
    if encoder.task.labels:
        predictions = score_labels(model, rows, encoder.task, weights, pause=pause)
        return {
            prediction.row_id: Answer(prediction.text, prediction.label_log_probabilities)
            for prediction in predictions
            if not prediction.too_long
        }
    most = min(encoder.task.max_answer_tokens or DEFAULT_ANSWER_TOKENS, MOST_ANSWER_TOKENS)
    decoding = Decoding(max_new_tokens=most)
    predictions = generate(model, rows, encoder.task, weights, decoding, pause=pause)
    texts = {one.row_id: one.text for one in predictions if not one.too_long}

    def logits(ids: list[int]) -> Tensor:
        packed, positions, layout = model.packed([ids])
        with model.wearing(weights):
            return model.logits(model.hidden(layout, positions, ids=packed))

    answers = {}
    for row in rows:
        if row.id in texts:
            answers[row.id] = _text_answer(encoder, row, texts[row.id], logits)
            pause()
    return answers


def _plain(
    network: Any,
    model: Model,
    encoder: Encoder,
    rows: Sequence[Row],
    student: dict[str, Answer],
    pause: Callable[[], None],
) -> dict[str, Answer]:
    """The same rows, asked of a plain transformers or PEFT model."""

    def logits(ids: list[int]) -> Tensor:
        result: Tensor = network(torch.tensor([ids], device=model.device)).logits[0].float()
        return result

    answers = {}
    for row in rows:
        if encoder.task.labels:
            answers[row.id] = _label_answer(network, model, encoder, row)
        else:
            answers[row.id] = _text_answer(encoder, row, student[row.id].text, logits)
        pause()
    return answers


def _label_answer(network: Any, model: Model, encoder: Encoder, row: Row) -> Answer:
    prompt = encoder.prompt(row)
    labels = encoder.label_ids(bool(row.messages))
    sums: list[float] = []
    for first in range(0, len(labels), LABELS_A_PASS):
        part = labels[first : first + LABELS_A_PASS]
        # What follows the last token changes nothing before it, so padding needs no mask.
        sequences = [torch.tensor([*prompt, *ids]) for ids in part]
        padded = pad_sequence(sequences, batch_first=True).to(model.device)
        with torch.inference_mode():
            logits = network(padded).logits[:, len(prompt) - 1 :].float().log_softmax(-1)
        for index, ids in enumerate(part):
            at = torch.arange(len(ids))
            sums.append(float(logits[index, at, torch.tensor(ids)].sum()))
    scores = torch.tensor(sums).log_softmax(-1).tolist()
    by_label = dict(zip(encoder.task.labels, scores, strict=True))
    return Answer(max(by_label, key=by_label.__getitem__), by_label)


def _text_answer(
    encoder: Encoder, row: Row, text: str, logits_of: Callable[[list[int]], Tensor]
) -> Answer:
    """How likely a text is as this row's answer, each token after those before it."""
    prompt = encoder.prompt(row)
    ids = encoder.answer(text, bool(row.messages))
    with torch.inference_mode():
        values = logits_of([*prompt, *ids])[len(prompt) - 1 : -1].log_softmax(-1)
    own = values[torch.arange(len(ids)), torch.tensor(ids)]
    gap = float((values.max(-1).values - own).max())
    return Answer(text, {text: float(own.mean())}, gap)


def _load(folder: Path, model: Model) -> Any:
    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    return network.to(model.device).eval()


def _tolerance(dtype: str) -> float:
    return TOLERANCES.get(dtype, max(TOLERANCES.values()))
