"""All that a training step changes: what a training goes on from as if nothing had happened."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tutelage_student.examples import BatchOrder
from tutelage_student.recipe import Recipe
from tutelage_student.weights import Weights


class TrainingState:
    """Weights, optimizer, average, data order, random streams, and what was counted so far.

    Everything a step needs room for is allocated here, so that a step that is out of memory has
    changed nothing but the gradient.
    """

    def __init__(
        self, weights: Weights, recipe: Recipe, order: BatchOrder, total_steps: int
    ) -> None:
        self.weights = weights
        self.order = order
        self.step = 0
        self.micro_batch_tokens = recipe.micro_batch_tokens
        self.losses: list[float] = []
        self.tokens = 0
        self.busy_seconds = 0.0
        self.gradient = weights.begin_training()
        self._flat = torch.nn.Parameter(weights.flat)
        self._flat.grad = self.gradient
        self.optimizer = torch.optim.AdamW(
            [self._flat], lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        # As its first step would make it.
        self.optimizer.state[self._flat] = {
            "step": torch.zeros((), device=self._flat.device),
            "exp_avg": torch.zeros_like(weights.flat),
            "exp_avg_sq": torch.zeros_like(weights.flat),
        }
        self._averaged_from = total_steps - round(recipe.average_share * total_steps) + 1
        averages = self._averaged_from <= total_steps
        self.mean = torch.zeros_like(weights.flat) if averages else None

    def average(self) -> None:
        """Takes the step's weights into the mean of the last steps, where there is one."""
        if self.mean is not None and self.step >= self._averaged_from:
            self.mean.lerp_(self.weights.flat, 1 / (self.step - self._averaged_from + 1))

    @property
    def _device_random(self) -> bool:
        return self.weights.flat.device.type == "cuda"

    def random_streams(self) -> dict[str, Tensor]:
        """States of the global streams, which dropout draws from."""
        streams = {"random": torch.get_rng_state()}
        if self._device_random:
            streams["device_random"] = torch.cuda.get_rng_state(self.weights.flat.device)
        return streams

    def set_random_streams(self, streams: Mapping[str, Tensor]) -> None:
        """Puts the global streams back to where they were."""
        torch.set_rng_state(streams["random"])
        if self._device_random:
            torch.cuda.set_rng_state(streams["device_random"], self.weights.flat.device)

    def numbers(self) -> dict[str, int | float]:
        """What was counted, and what was learned about the memory."""
        return {
            "step": self.step,
            "micro_batch_tokens": self.micro_batch_tokens,
            "tokens": self.tokens,
            "busy_seconds": self.busy_seconds,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The rest of the state, by name; not copied."""
        kept = {
            "weights": self.weights.flat,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "order": torch.tensor(self.order.waiting, dtype=torch.int64),
            "order_random": self.order.generator.get_state(),
            **self.random_streams(),
        }
        for name, value in self.optimizer.state[self._flat].items():
            kept[f"optimizer.{name}"] = value
        if self.mean is not None:
            kept["mean"] = self.mean
        return kept

    def restore(self, numbers: Mapping[str, int | float], tensors: Mapping[str, Tensor]) -> None:
        """Becomes the state that `numbers` and `tensors` were taken from.

        Raises ValueError, and changes nothing, where they do not fit this training.
        """
        fixed = {
            name: value for name, value in self.tensors().items() if name not in ("losses", "order")
        }
        for name, value in fixed.items():
            given = tensors.get(name)
            if given is None or given.shape != value.shape or given.dtype != value.dtype:
                raise ValueError(f"{name} does not fit")
        step = int(numbers["step"])
        losses, order = tensors["losses"].tolist(), tensors["order"].tolist()
        if len(losses) != step or not all(0 <= place < self.order.examples for place in order):
            raise ValueError("losses or order do not fit")
        self.step = step
        self.micro_batch_tokens = int(numbers["micro_batch_tokens"])
        self.tokens = int(numbers["tokens"])
        self.busy_seconds = float(numbers["busy_seconds"])
        self.losses = losses
        self.order.waiting = order
        self.order.generator.set_state(tensors["order_random"])
        self.set_random_streams(tensors)
        for name, value in fixed.items():
            if "random" not in name:
                value.copy_(tensors[name])
        self.weights.refresh()
