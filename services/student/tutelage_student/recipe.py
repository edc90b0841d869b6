"""A fine-tuning recipe and the schedule that follows from it."""

import math
from dataclasses import dataclass
from typing import Literal

from tutelage_student.errors import invalid


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune; the fields are those of `student.proto`, where each is explained."""

    method: Literal["lora", "full", "probe"] = "lora"
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    trained_layers: int = 0
    epochs: float = 4.0
    min_steps: int = 0
    exact_steps: int = 0
    batch_rows: int = 8
    micro_batch_tokens: int = 2048
    learning_rate: float = 1e-3
    warmup_share: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    average_share: float = 0.0

    def __post_init__(self) -> None:
        lora = self.method == "lora"
        for name, ok, fix in (
            ("method", self.method in ("lora", "full", "probe"), "use lora, full or probe"),
            ("lora_rank", not lora or 1 <= self.lora_rank <= 1024, "use 1 to 1024"),
            ("lora_alpha", not lora or self.lora_alpha > 0, "use more than 0"),
            ("lora_dropout", not lora or 0 <= self.lora_dropout < 1, "use 0 to below 1"),
            ("trained_layers", self.trained_layers >= 0, "use 0 (all) or a number of layers"),
            ("epochs", 0 <= self.epochs <= 10_000, "use 0 to 10000"),
            ("min_steps", self.min_steps >= 0, "use 0 or more"),
            ("exact_steps", self.exact_steps >= 0, "use 0 or more"),
            ("epochs", self.epochs or self.min_steps or self.exact_steps, "train at all"),
            ("batch_rows", 1 <= self.batch_rows <= 65_536, "use 1 to 65536"),
            ("micro_batch_tokens", self.micro_batch_tokens >= 1, "use 1 or more, e.g. 2048"),
            ("learning_rate", 0 < self.learning_rate <= 1, "use more than 0, at most 1"),
            ("warmup_share", 0 <= self.warmup_share <= 1, "use 0 to 1"),
            ("weight_decay", 0 <= self.weight_decay <= 10, "use 0 to 10"),
            ("max_grad_norm", self.max_grad_norm > 0, "use more than 0, e.g. 1"),
            ("average_share", 0 <= self.average_share <= 1, "use 0 to 1"),
        ):
            # NaN compares false with everything, so it is refused too.
            if not ok:
                raise invalid(f"recipe.{name}", f"{getattr(self, name)!r}", fix)

    def total_steps(self, rows: int) -> int:
        """Optimizer steps for this many training rows."""
        if self.exact_steps:
            return self.exact_steps
        return max(math.ceil(self.epochs * rows / self.batch_rows), self.min_steps, 1)

    def learning_rate_at(self, step: int, total: int) -> float:
        """Rate of step 1 to `total`: linear warm-up, then cosine towards zero.

        The first step after the warm-up has the peak, the last is just above zero, so that none is
        wasted.
        """
        warmup = round(self.warmup_share * total)
        if step <= warmup:
            return self.learning_rate * step / warmup
        progress = (step - 1 - warmup) / (total - warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
