"""A probe: a logistic regression on what the base model makes of a prompt.

It is what one would try before fine-tuning: the base weights stay as they are, and only a closed
label set can be answered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tutelage_student.errors import invalid
from tutelage_student.model import Model
from tutelage_student.questions import Question


@dataclass(frozen=True, eq=False)
class Probe:
    """All float64, on the CPU. weight: `[labels, hidden]`; bias: `[labels]`.

    mean, scale: `[hidden]`, what features are standardised with.
    """

    labels: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    method: ClassVar[str] = "probe"

    @property
    def trainable_parameters(self) -> int:
        """Number of weights that training finds."""
        return self.weight.numel() + self.bias.numel()

    @property
    def size_bytes(self) -> int:
        """Memory that the weights take."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name, as a checkpoint holds them."""
        return {
            "weight": self.weight,
            "bias": self.bias,
            "mean": self.mean,
            "scale": self.scale,
        }

    def log_probabilities(self, features: Tensor, labels: Sequence[str]) -> Tensor:
        """`[rows, labels]` of `[rows, hidden]`, in the order of `labels`, which must be its own."""
        if sorted(labels) != sorted(self.labels):
            raise invalid(
                "task.labels", "others than the probe's", "ask with the labels it was trained on"
            )
        scores = ((features - self.mean) / self.scale) @ self.weight.T + self.bias
        order = [self.labels.index(label) for label in labels]
        return scores.log_softmax(-1)[:, order]


def features(model: Model, batch: Sequence[Question]) -> Tensor:
    """`[rows, hidden]`, float64: the base's final hidden state of each prompt's last token.

    That is after the final norm, as the next token's logits are computed from it.
    """
    ids, positions, layout = model.packed([question.prompt for question in batch])
    ends = torch.tensor([len(question.prompt) for question in batch]).cumsum(0) - 1
    with torch.inference_mode(), model.wearing(None):
        hidden = model.hidden(layout, positions, ids=ids, wanted=ends.to(model.device))
    return hidden.cpu().double()
