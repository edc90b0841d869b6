"""The weights that a recipe trains, or fits."""

from typing import TypeAlias

from tutelage_student.full import FullWeights
from tutelage_student.lora import LoraWeights
from tutelage_student.model import Model
from tutelage_student.probe import Probe
from tutelage_student.recipe import Recipe

# What gradients train.
Weights: TypeAlias = LoraWeights | FullWeights
# What makes a student of the base model.
StudentWeights: TypeAlias = Weights | Probe


def new_weights(model: Model, recipe: Recipe) -> Weights:
    """Trainable weights as the recipe wants them, not yet initialised."""
    if recipe.method == "full":
        return FullWeights(model, recipe.trained_layers)
    return LoraWeights(
        model, recipe.lora_rank, recipe.lora_alpha, recipe.lora_dropout, recipe.trained_layers
    )
