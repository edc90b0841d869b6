"""Full fine-tuning: all weights, or all of the last layers."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tutelage_student.errors import invalid
from tutelage_student.model import Model


class FullWeights:
    """A float32 copy of the trained weights in one flat vector, and one in the base's format.

    Products run in the base's format; the optimizer works on the float32 copy, since updates are
    often smaller than bfloat16 can tell apart.
    """

    method = "full"

    def __init__(self, model: Model, trained_layers: int) -> None:
        total = len(model.layers)
        if trained_layers > total:
            raise invalid(
                "recipe.trained_layers", f"{trained_layers} of {total} layers", "use fewer, or 0"
            )
        self.first_layer = total - trained_layers if trained_layers else 0
        modules = model.layers[self.first_layer :] if trained_layers else [model.network]
        inside = {id(parameter) for module in modules for parameter in module.parameters()}
        self._parameters: dict[str, nn.Parameter] = {
            name.replace(".base.", "."): parameter
            for name, parameter in model.network.named_parameters()
            if id(parameter) in inside
        }
        self._base = {name: parameter.data for name, parameter in self._parameters.items()}
        self.flat = torch.cat([value.float().flatten() for value in self._base.values()])
        self._low = {name: value.clone() for name, value in self._base.items()}
        self.gradient: Tensor | None = None

    @property
    def trainable_parameters(self) -> int:
        """Number of weights that training changes."""
        return self.flat.numel()

    def initialise(self, generator: torch.Generator) -> None:
        """Nothing is drawn: training starts at the base weights."""

    def copy_from(self, other: object) -> None:
        """Continues from another student of the same shape."""
        if not isinstance(other, FullWeights) or list(other._base) != list(self._base):
            raise invalid(
                "start_checkpoint_uri",
                "holds other weights than the recipe trains",
                "use a checkpoint of a recipe with the same method and trained_layers",
            )
        self.flat.copy_(other.flat)
        self.refresh()

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the weights from tensors under the network's names; KeyError where one lacks."""
        for name, span in self._spans():
            self.flat[span].copy_(tensors[name].flatten())
        self.refresh()

    def _spans(self) -> list[tuple[str, slice]]:
        spans, offset = [], 0
        for name, value in self._base.items():
            spans.append((name, slice(offset, offset + value.numel())))
            offset += value.numel()
        return spans

    @torch.no_grad()
    def refresh(self) -> None:
        """Renews the copies that are multiplied with; call after each change of `flat`."""
        for name, span in self._spans():
            self._low[name].copy_(self.flat[span].view_as(self._low[name]))

    def begin_training(self) -> Tensor:
        """Starts to collect gradients in one flat float32 vector, which is returned."""
        self.gradient = torch.zeros_like(self.flat)
        return self.gradient

    def collect_gradient(self) -> None:
        """Moves the last backward pass's gradients to the flat vector, in float32."""
        assert self.gradient is not None
        for name, span in self._spans():
            parameter = self._parameters[name]
            if parameter.grad is not None:
                self.gradient[span].add_(parameter.grad.flatten())
                parameter.grad = None

    def end_training(self) -> None:
        """Frees the gradients."""
        self.gradient = None

    def put_on(self, model: Model) -> None:
        """Puts these weights in the place of the base weights."""
        for name, parameter in self._parameters.items():
            parameter.data = self._low[name]
            parameter.requires_grad_(self.gradient is not None)

    def take_off(self, model: Model) -> None:
        """Puts the base weights back."""
        for name, parameter in self._parameters.items():
            parameter.data = self._base[name]
            parameter.requires_grad_(False)
            parameter.grad = None

    @property
    def size_bytes(self) -> int:
        """Memory that the weights take."""
        return self.flat.nbytes + sum(value.nbytes for value in self._low.values())
