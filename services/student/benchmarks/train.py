"""`train-short` and `train-long`: tokens per second of LoRA fine-tuning, against Trainer and PEFT.

Both sides get the same model, rows, number of optimizer steps, rows a step, rate and schedule; what
they are trained to is compared by the loss on held-out rows, over the rounds' seeds.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.measure import in_turns, peak_flops, report, say, timed
from benchmarks.plain import PlainTrainer, held_out_loss
from benchmarks.rows import Benched
from tutelage_student.activations import ActivationCache
from tutelage_student.examples import Example, encode
from tutelage_student.model import Model
from tutelage_student.recipe import Recipe
from tutelage_student.task import Encoder
from tutelage_student.train import fine_tune

# The held-out loss may lie this far above the other side's.
LOSS_TOLERANCE = 0.02
# Both sides must have learned: at most this much is left of the held-out loss of the base weights.
LEARNED_SHARE = 0.9


def run(
    name: str,
    model: Model,
    benched: Benched,
    recipe: Recipe,
    rounds: int,
    loss_slack: float = 0.0,
) -> None:
    """Measures, prints the line, and ends with 1 where our loss is worse by more than 2 %.

    loss_slack: nats by which it may be worse besides, for the tests' form.
    """
    encoder = Encoder(model.tokenizer, benched.task)
    examples, _ = encode(model, encoder, benched.train)
    held_out, _ = encode(model, encoder, benched.held_out)
    plain = PlainTrainer(model.source.folder, int(model.tokenizer.eos_token_id), examples, recipe)
    losses: dict[str, list[float]] = {"ours": [], "theirs": []}

    def ours(seed: int) -> tuple[float, float]:
        # A cache of its own: what a first training pays is part of it.
        cache = ActivationCache()
        seconds, student = timed(
            lambda: fine_tune(model, benched.train, benched.task, recipe, seed, activations=cache)
        )
        with model.wearing(student.weights):
            losses["ours"].append(_own_loss(model, held_out))
        return student.trained_tokens, seconds

    def theirs(seed: int) -> tuple[float, float]:
        seconds, tokens, network = plain.train(seed)
        losses["theirs"].append(held_out_loss(network, held_out))
        return tokens, seconds

    our_side, their_side = in_turns(rounds, ours, theirs)
    means = {side: statistics.mean(values) for side, values in losses.items()}
    base = held_out_loss(model_as_transformers(model), held_out)
    say(f"held-out loss: base {base:.4f}, ours {means['ours']:.4f}, theirs {means['theirs']:.4f}")
    speed = statistics.median(our_side.speeds)
    peak = peak_flops(model)
    report(
        name,
        "tokens/s",
        our_side,
        their_side,
        {
            "format": {"ours": str(model.dtype).removeprefix("torch."), "theirs": plain.format},
            "rows_from": benched.source,
            "steps": recipe.exact_steps,
            "batch_rows": recipe.batch_rows,
            "trained_layers": {
                "ours": recipe.trained_layers or len(model.layers),
                "theirs": len(model.layers),
            },
            "tokens_per_row": round(sum(len(one.ids) for one in examples) / len(examples), 1),
            "held_out_rows": len(held_out),
            "held_out_loss": {
                side: round(value, 4) for side, value in [("base", base), *means.items()]
            },
            # Of matrix products of the model's shape, measured here on the same threads.
            "peak_gflops": round(peak / 1e9),
            "share_of_peak": round(speed * operations_per_token(model, recipe) / peak, 4),
        },
        same=means["ours"] <= means["theirs"] * (1 + LOSS_TOLERANCE) + loss_slack
        and max(means.values()) < base * LEARNED_SHARE,
    )


def operations_per_token(model: Model, recipe: Recipe) -> float:
    """Multiplications and additions that a step needs per token, attention and adapters left out.

    Two a weight forward and two for the gradient of the inputs; layers below the trained ones are
    computed once per row in all, which is left out too.
    """
    layers = model.layers[-recipe.trained_layers :] if recipe.trained_layers else model.layers
    weights = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    return 4.0 * weights


def model_as_transformers(model: Model) -> Any:
    """The base network behind the interface that the other side's has."""

    def forward(input_ids: torch.Tensor) -> Any:
        ids, positions, layout = model.packed(input_ids.tolist())
        return _Output(model.logits(model.hidden(layout, positions, ids=ids))[None])

    return _Network(forward)


class _Output:
    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


class _Network:
    def __init__(self, forward: Any) -> None:
        self.forward = forward

    def __call__(self, input_ids: torch.Tensor) -> Any:
        return self.forward(input_ids)

    def eval(self) -> None:
        """Nothing to switch."""


def _own_loss(model: Model, examples: Sequence[Example]) -> float:
    return held_out_loss(model_as_transformers(model), examples)
