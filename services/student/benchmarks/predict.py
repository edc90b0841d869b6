"""`predict-label` and `predict-text`: answers per second, against transformers' `generate`."""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import plain
from benchmarks.measure import Side, in_turns, report, say, timed
from benchmarks.rows import Benched
from tutelage_student import checkpoint
from tutelage_student.activations import ActivationCache
from tutelage_student.lora import LoraWeights
from tutelage_student.model import Model, load
from tutelage_student.predict import Decoding, generate, score_labels
from tutelage_student.questions import Prediction
from tutelage_student.recipe import Recipe
from tutelage_student.task import Encoder, Row
from tutelage_student.train import fine_tune

SAME_SHARE = 0.995
# In bfloat16 two tokens this near in log-probability may change places.
NEAR_TIE = 0.05


@dataclass(frozen=True)
class Trained:
    """The same student for both sides: ours, and what PEFT loads from its checkpoint and merges."""

    weights: LoraWeights
    folder: Path
    network: Any


def run_labels(model: Model, benched: Benched, recipe: Recipe, rounds: int) -> None:
    """Scoring the closed label set against generating the label."""
    with tempfile.TemporaryDirectory() as folder:
        _run_labels(model, benched, _trained(model, benched, recipe, Path(folder)), rounds)


def _run_labels(model: Model, benched: Benched, student: Trained, rounds: int) -> None:
    encoder = Encoder(model.tokenizer, benched.task)
    prompts = [encoder.prompt(row) for row in benched.held_out]
    most = plain.longest_label(encoder)
    rows, task = benched.held_out, benched.task
    our_side, their_side, ours, theirs = _answered(
        rounds,
        lambda: score_labels(model, rows, task, student.weights, activations=ActivationCache()),
        lambda: plain.generate(student.network, encoder, prompts, most),
    )
    differences = _differences(rows, ours, theirs)
    our_exact, their_exact = _in_float32(
        model,
        student,
        _merged_in_float32(model, student),
        benched,
        most,
        lambda one, weights: score_labels(one, rows, task, weights, activations=ActivationCache()),
    )
    same, exact = _same_share(ours, theirs), _same_share(our_exact, their_exact)
    report(
        "predict-label",
        "rows/s",
        our_side,
        their_side,
        {
            "rows": len(prompts),
            "rows_from": benched.source,
            "same_share": round(same, 4),
            "same_share_float32": round(exact, 4),
            # Of each side's timed answers, how many are what it says in float32.
            "float32_answers": {
                "ours": round(_same_share(ours, our_exact), 4),
                "theirs": round(_same_share(theirs, their_exact), 4),
            },
            "differences": differences[:10],
        },
        same=min(same, exact) >= SAME_SHARE,
    )


def run_texts(model: Model, benched: Benched, recipe: Recipe, rounds: int, most: int) -> None:
    """Generating worked answers in the fastest format; in float32 the texts are compared."""
    with tempfile.TemporaryDirectory() as folder:
        _run_texts(model, benched, _trained(model, benched, recipe, Path(folder)), rounds, most)


def _run_texts(model: Model, benched: Benched, student: Trained, rounds: int, most: int) -> None:
    encoder = Encoder(model.tokenizer, benched.task)
    rows = benched.held_out
    prompts = [encoder.prompt(row) for row in rows]
    task = benched.task
    greedy = Decoding(max_new_tokens=most)
    our_side, their_side, ours, theirs = _answered(
        rounds,
        lambda: generate(model, rows, task, student.weights, greedy),
        lambda: plain.generate(student.network, encoder, prompts, most),
    )
    # In float32: bfloat16 cannot tell logits of 16 to 32 that lie nearer than 0.125.
    network = _merged_in_float32(model, student)
    gaps = [
        _first_gap(network, encoder, row, mine, other)
        for row, mine, other in zip(rows, ours, theirs, strict=True)
        if mine != other
    ]
    exact = _same_share(
        *_in_float32(
            model,
            student,
            network,
            benched,
            most,
            lambda one, weights: generate(one, rows, task, weights, greedy),
        )
    )
    widest = max(gaps, default=0.0)
    report(
        "predict-text",
        "rows/s",
        our_side,
        their_side,
        {
            "rows": len(rows),
            "rows_from": benched.source,
            "max_new_tokens": most,
            "same_share_float32": round(exact, 4),
            "differences": len(gaps),
            "median_gap_nats": round(statistics.median(gaps), 4) if gaps else 0.0,
            "widest_gap_nats": round(widest, 4),
        },
        same=exact >= SAME_SHARE and widest <= NEAR_TIE,
    )


def _trained(model: Model, benched: Benched, recipe: Recipe, folder: Path) -> Trained:
    say("training the student that both sides ask")
    student = fine_tune(
        model, benched.train, benched.task, recipe, 0, activations=ActivationCache()
    )
    if not isinstance(student.weights, LoraWeights):
        raise TypeError("the benchmark trains adapters")
    checkpoint.save(folder, model, student, recipe, benched.task, 0, {})
    return Trained(student.weights, folder, plain.merged(model.source.folder, folder, model.dtype))


def _answered(
    rounds: int, ours: Callable[[], list[Prediction]], theirs: Callable[[], list[str]]
) -> tuple[Side, Side, list[str], list[str]]:
    """Both sides in turns, and what each answered in the last round."""
    texts: dict[str, list[str]] = {}

    def our_turn(_round: int) -> tuple[float, float]:
        seconds, predictions = timed(ours)
        texts["ours"] = [prediction.text for prediction in predictions]
        return len(predictions), seconds

    def their_turn(_round: int) -> tuple[float, float]:
        seconds, texts["theirs"] = timed(theirs)
        return len(texts["theirs"]), seconds

    our_side, their_side = in_turns(rounds, our_turn, their_turn)
    return our_side, their_side, texts["ours"], texts["theirs"]


def _differences(
    rows: Sequence[Row], ours: Sequence[str], theirs: Sequence[str]
) -> list[dict[str, str]]:
    return [
        {"row": row.id, "ours": mine, "theirs": other}
        for row, mine, other in zip(rows, ours, theirs, strict=True)
        if mine != other
    ]


def _first_gap(network: Any, encoder: Encoder, row: Row, mine: str, other: str) -> float:
    """How far apart in log-probability the tokens are at which two answers part, in nats."""
    first, second = ([*encoder.answer(text, False), encoder.eos_id] for text in (mine, other))
    shared = 0
    while first[shared] == second[shared]:
        shared += 1
    ids = encoder.prompt(row) + first[:shared]
    with torch.inference_mode():
        logits = network(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    return abs(float(logits[first[shared]] - logits[second[shared]]))


def _same_share(ours: Sequence[str], theirs: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(ours)


def _merged_in_float32(model: Model, student: Trained) -> Any:
    return plain.merged(model.source.folder, student.folder, torch.float32)


def _in_float32(
    model: Model,
    student: Trained,
    network: Any,
    benched: Benched,
    most: int,
    answers: Callable[[Model, LoraWeights], list[Prediction]],
) -> tuple[list[str], list[str]]:
    """What both sides answer when they compute in float32; network: the other side's."""
    say("the same in float32, to compare the texts")
    exact = load(
        f"file:{model.source.folder}", model.source.folder, device="cpu", dtype=torch.float32
    )
    worn = student.weights
    layers = len(exact.layers) - worn.first_layer
    weights = LoraWeights(exact, worn.rank, worn.alpha, worn.dropout, layers)
    weights.copy_from(worn)
    ours = [one.text for one in answers(exact, weights)]
    encoder = Encoder(exact.tokenizer, benched.task)
    prompts = [encoder.prompt(row) for row in benched.held_out]
    return ours, plain.generate(network, encoder, prompts, most)
