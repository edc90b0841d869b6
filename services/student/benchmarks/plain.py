"""The other side: transformers, PEFT and Trainer as their documentation shows them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from benchmarks.measure import say, timed
from tutelage_student.examples import Example
from tutelage_student.recipe import Recipe
from tutelage_student.task import Encoder

# Weights and products in float32, products in bfloat16 by autocast, or weights in bfloat16 too.
FORMATS = ("float32", "autocast", "bfloat16")
# Rows of one batch of answers; the fastest of 16, 32 and 64 on two cores.
BATCH_ROWS = 32


class PlainTrainer:
    """LoRA by PEFT on all linear layers, trained by `transformers.Trainer`.

    folder: of the base weights. number_format: one of FORMATS; "" takes the fastest, found by a
    few steps of each.
    """

    def __init__(
        self,
        folder: Path,
        pad_id: int,
        examples: Sequence[Example],
        recipe: Recipe,
        number_format: str = "",
    ) -> None:
        self.folder = folder
        self.pad_id = pad_id
        self.recipe = recipe
        self.rows = [
            {
                "input_ids": list(example.ids),
                "labels": [-100] * (len(example.ids) - example.completion)
                + list(example.ids[-example.completion :]),
            }
            for example in examples
        ]
        self.format = number_format or self._fastest()

    def _fastest(self) -> str:
        times = {}
        for name in FORMATS:
            self.format = name
            times[name] = self.train(0, steps=4)[0]
        say(
            "plain side, seconds of 4 steps: " + ", ".join(f"{k} {v:.1f}" for k, v in times.items())
        )
        return min(times, key=times.__getitem__)

    def _collate(self, batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in batch)
        pads = {"input_ids": self.pad_id, "labels": -100}
        padded = {
            name: torch.tensor([row[name] + [pad] * (longest - len(row[name])) for row in batch])
            for name, pad in pads.items()
        }
        lengths = torch.tensor([len(row["input_ids"]) for row in batch])
        mask = (torch.arange(longest) < lengths[:, None]).long()
        return {**padded, "attention_mask": mask}

    def train(self, seed: int, steps: int | None = None) -> tuple[float, int, Any]:
        """Seconds of the training, its tokens without padding, and the trained network."""
        # Here, as a script that only answers does not pay for it.
        from peft import LoraConfig, get_peft_model
        from transformers import Trainer, TrainingArguments

        recipe = self.recipe
        torch.manual_seed(seed)
        dtype = torch.bfloat16 if self.format == "bfloat16" else torch.float32
        network: Any = AutoModelForCausalLM.from_pretrained(self.folder, dtype=dtype)
        config = LoraConfig(
            r=recipe.lora_rank, lora_alpha=int(recipe.lora_alpha), target_modules="all-linear"
        )
        network = get_peft_model(network, config)
        steps = steps or recipe.exact_steps
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=recipe.batch_rows,
                learning_rate=recipe.learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=round(recipe.warmup_share * steps),
                weight_decay=recipe.weight_decay,
                max_grad_norm=recipe.max_grad_norm,
                bf16=self.format == "autocast",
                use_cpu=True,
                seed=seed,
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                remove_unused_columns=False,
            )
            seen = _Counter(self._collate)
            trainer = Trainer(
                model=network, args=arguments, train_dataset=self.rows, data_collator=seen
            )
            seconds, _ = timed(trainer.train)
        return seconds, seen.tokens, network


class _Counter:
    """A collator that counts the tokens that pass, without padding."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate
        self.tokens = 0

    def __call__(self, batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        self.tokens += sum(len(row["input_ids"]) for row in batch)
        result: dict[str, torch.Tensor] = self.collate(batch)
        return result


def held_out_loss(network: Any, examples: Sequence[Example]) -> float:
    """Mean loss per completion token, in nats, of a network as transformers has it."""
    total, tokens = 0.0, 0
    network.eval()
    with torch.inference_mode():
        for example in examples:
            logits = network(input_ids=torch.tensor([example.ids])).logits[0].float()
            first = len(example.ids) - example.completion
            targets = torch.tensor(example.ids[first:])
            total += float(cross_entropy(logits[first - 1 : -1], targets, reduction="sum"))
            tokens += example.completion
    return total / tokens


def generate(network: Any, encoder: Encoder, prompts: Sequence[list[int]], most: int) -> list[str]:
    """Greedy answers in the prompts' order: batches of like lengths, padded on the left."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    network.eval()
    for first in range(0, len(order), BATCH_ROWS):
        part = order[first : first + BATCH_ROWS]
        longest = max(len(prompts[index]) for index in part)
        ids = torch.full((len(part), longest), encoder.eos_id)
        mask = torch.zeros_like(ids)
        for row, index in enumerate(part):
            ids[row, longest - len(prompts[index]) :] = torch.tensor(prompts[index])
            mask[row, longest - len(prompts[index]) :] = 1
        with torch.inference_mode():
            out = network.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=most,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=encoder.eos_id,
                pad_token_id=encoder.eos_id,
            )
        for index, row in zip(part, out[:, longest:].tolist(), strict=True):
            end = row.index(encoder.eos_id) if encoder.eos_id in row else len(row)
            answers[index] = encoder.raw_text(row[:end]).strip()
    return answers


def merged(base: Path, adapter: Path, dtype: torch.dtype) -> Any:
    """The base weights with an adapter in them, as PEFT merges it.

    In float32: in bfloat16 the sum would round most of an adapter away.
    """
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(network, str(adapter)).merge_and_unload().to(dtype)


def longest_label(encoder: Encoder) -> int:
    """Tokens that suffice to generate any label, with the token that ends it."""
    return max(len(encoder.answer(label, False)) for label in encoder.task.labels) + 1
