"""Our own Llama layers against transformers', which every other architecture goes through."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tutelage_student import activations, llamalayer, packing
from tutelage_student.activations import ActivationCache, Below
from tutelage_student.activations import below as below_of
from tutelage_student.examples import Example
from tutelage_student.frozenlinear import FrozenLinear
from tutelage_student.gradient import accumulate_gradient
from tutelage_student.lora import LoraWeights
from tutelage_student.model import Model, load
from tutelage_student.predict import Decoding, generate, score_labels
from tutelage_student.task import Row, Task

TASK = Task("Say: {input}\nThen:", ("yes", "no", "never"))
ROWS = [
    Row(str(number), "a word " * (number % 4 + 1), TASK.labels[number % 3]) for number in range(9)
]


@contextmanager
def transformers_layers(model: Model) -> Iterator[None]:
    ours = model.llama_layers
    model.llama_layers = None
    try:
        yield
    finally:
        model.llama_layers = ours


def drawn(model: Model, trained_layers: int, seed: int = 1) -> LoraWeights:
    """Weights with ups that are not zero."""
    weights = LoraWeights(model, 4, 8, 0.0, trained_layers)
    generator = torch.Generator().manual_seed(seed)
    weights.initialise(generator)
    weights.flat.add_(torch.randn(weights.flat.shape, generator=generator) * 0.05)
    weights.refresh()
    return weights


def gradient_of(
    model: Model, trained_layers: int, lengths: Sequence[int]
) -> tuple[float, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    batch = [
        Example(tuple(torch.randint(3, 90, (length + 1,), generator=generator).tolist()), 1)
        for length in lengths
    ]
    weights = drawn(model, trained_layers)
    flat = weights.begin_training()
    with model.wearing(weights):
        # Two or three micro-batches.
        read = [example.ids[:-1] for example in batch]
        first = weights.first_layer
        below = Below(ActivationCache(), model, first, read) if first else None
        loss = accumulate_gradient(model, weights, batch, 14, below)
    weights.end_training()
    return loss, flat


@pytest.mark.parametrize("trained_layers", [0, 1])
@pytest.mark.parametrize("lengths", [(5, 9, 7, 9), (6, 6, 6), (1, 30)])
def test_the_gradient_is_that_of_autograd(
    model: Model, trained_layers: int, lengths: tuple[int, ...]
) -> None:
    assert model.llama_layers is not None
    loss, ours = gradient_of(model, trained_layers, lengths)
    with transformers_layers(model):
        plain_loss, plain = gradient_of(model, trained_layers, lengths)
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    assert plain.abs().max() > 1e-4
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-6)


def test_rows_beyond_what_our_layers_train_add_to_the_same_gradient(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = (5, 9, 7, 12, 6)
    with transformers_layers(model):
        plain_loss, plain = gradient_of(model, 1, lengths)
    for module in (packing, llamalayer):
        monkeypatch.setattr(module, "FOLDED_LONGEST", 8)
    loss, ours = gradient_of(model, 1, lengths)
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("room", [1 << 20, 0])
def test_what_enters_the_trained_layers_comes_in_blocks(
    model: Model, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(activations, "BLOCK_TOKENS", 16)
    sequences = [tuple(range(3, 3 + length)) for length in (9, 4, 7, 30, 4, 11)]
    cache = ActivationCache(room)
    below = Below(cache, model, 1, sequences)
    passes = 0

    def count() -> None:
        nonlocal passes
        passes += 1

    asked = [sequences[index] for index in (3, 0, 5, 1)]
    together = below.of(asked, count)
    # 4 and 7, 9, 11, 30 tokens; where nothing is kept all that is asked for in one pass.
    assert passes == (4 if room else 1)
    assert bool(cache.used_bytes) == bool(room)
    alone = [below_of(model, 1, model.packed([one])) for one in asked]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    if room:
        assert torch.equal(below.of(asked), together)


@pytest.mark.parametrize("worn", [False, True])
def test_answers_are_those_of_transformers(model: Model, worn: bool) -> None:
    weights = drawn(model, 1) if worn else None
    decoding = Decoding(max_new_tokens=6)
    ours = score_labels(model, ROWS, TASK, weights), generate(model, ROWS, TASK, weights, decoding)
    with transformers_layers(model):
        plain_scores = score_labels(model, ROWS, TASK, weights)
        plain_texts = generate(model, ROWS, TASK, weights, decoding)
    for one, other in zip(ours[0], plain_scores, strict=True):
        assert one.label_log_probabilities == pytest.approx(other.label_log_probabilities, abs=1e-4)
    assert [one.text for one in ours[1]] == [other.text for other in plain_texts]


def test_bfloat16_stays_near_float32(model_folder: Path, tmp_path: Path, model: Model) -> None:
    low = load(f"file:{model_folder}", tmp_path, device="cpu", dtype=torch.bfloat16)
    exact = score_labels(model, ROWS, TASK, drawn(model, 1))
    near = score_labels(low, ROWS, TASK, drawn(low, 1))
    for one, other in zip(near, exact, strict=True):
        assert one.label_log_probabilities == pytest.approx(
            other.label_log_probabilities, rel=0.02, abs=0.05
        )
    _, exact_gradient = gradient_of(model, 0, (5, 9, 7))
    _, near_gradient = gradient_of(low, 0, (5, 9, 7))
    assert torch.cosine_similarity(exact_gradient, near_gradient, dim=0) > 0.999


@pytest.mark.parametrize("rows", [1, 3, 144, 700])
def test_a_packed_weight_gives_the_plain_product(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(96, 64, generator=generator).bfloat16()
    x = torch.randn(rows, 64, generator=generator).bfloat16()
    grad = torch.randn(rows, 96, generator=generator).bfloat16()
    frozen = FrozenLinear(weight)
    torch.testing.assert_close(frozen(x), x @ weight.t(), rtol=0.02, atol=0.1)
    torch.testing.assert_close(frozen.input_gradient(grad), grad @ weight, rtol=0.02, atol=0.1)
