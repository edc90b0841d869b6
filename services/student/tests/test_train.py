import pytest
import torch
from conftest import make_rows

from tutelage_student.activations import ActivationCache
from tutelage_student.errors import StudentError
from tutelage_student.predict import score_labels
from tutelage_student.recipe import Recipe
from tutelage_student.task import Row, Task
from tutelage_student.train import fine_tune

LORA = Recipe(lora_rank=8, lora_alpha=16, exact_steps=40, batch_rows=16, learning_rate=1e-2)
FULL = Recipe(method="full", exact_steps=40, batch_rows=16, learning_rate=3e-3)


def accuracy(model, rows, task, weights):
    answers = score_labels(model, rows, task, weights)
    return sum(answer.text == row.output for answer, row in zip(answers, rows, strict=True)) / len(
        rows
    )


@pytest.mark.parametrize("recipe", [LORA, FULL], ids=["lora", "full"])
def test_learns_and_leaves_the_base_weights_as_they_were(model, task, recipe):
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    student = fine_tune(model, make_rows(64), task, recipe, seed=3)
    assert student.final_loss < student.losses[0] / 4
    assert accuracy(model, make_rows(60, seed=9), task, student.weights) > 0.95
    after = {name.replace(".base.", "."): v for name, v in model.network.state_dict().items()}
    assert all(torch.equal(after[name.replace(".base.", ".")], before[name]) for name in before)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(exact_steps=6, lora_dropout=0.1, average_share=0.5),
        Recipe(exact_steps=6, trained_layers=1),
        Recipe(exact_steps=4, method="full"),
    ],
    ids=["dropout and averaging", "one layer", "full"],
)
def test_same_seed_gives_the_same_weights_bit_for_bit(model, task, recipe):
    first = fine_tune(model, make_rows(32), task, recipe, seed=5)
    # What happens in between must not matter.
    score_labels(model, make_rows(3), task, first.weights)
    torch.rand(3)
    second = fine_tune(model, make_rows(32), task, recipe, seed=5)
    other = fine_tune(model, make_rows(32), task, recipe, seed=6)
    assert torch.equal(first.weights.flat, second.weights.flat)
    assert not torch.equal(first.weights.flat, other.weights.flat)


def test_predictions_between_steps_do_not_change_a_training(model, task):
    recipe = Recipe(exact_steps=6)
    other = fine_tune(model, make_rows(16), task, Recipe(exact_steps=3, lora_rank=4), seed=1)
    full = fine_tune(model, make_rows(16), task, Recipe(exact_steps=3, method="full"), seed=1)
    alone = fine_tune(model, make_rows(32), task, recipe, seed=5)

    def interrupt(_step):
        for weights in (other.weights, None, full.weights):
            score_labels(model, make_rows(4), task, weights)

    interrupted = fine_tune(model, make_rows(32), task, recipe, seed=5, on_step=interrupt)
    assert torch.equal(alone.weights.flat, interrupted.weights.flat)


def test_frozen_lower_layers_are_computed_once_and_give_the_same_gradients(model, task):
    recipe = Recipe(exact_steps=5, trained_layers=1)
    shared = ActivationCache()
    first = fine_tune(model, make_rows(16), task, recipe, seed=2, activations=shared)
    filled = shared.used_bytes
    second = fine_tune(model, make_rows(16), task, recipe, seed=2, activations=shared)
    assert filled > 0
    assert shared.used_bytes == filled
    tight = fine_tune(
        model, make_rows(16), task, recipe, seed=2, activations=ActivationCache(capacity_bytes=1)
    )
    assert torch.equal(first.weights.flat, second.weights.flat)
    # Where nothing is kept rows are computed in other company.
    torch.testing.assert_close(first.weights.flat, tight.weights.flat, rtol=1e-4, atol=1e-5)
    # Other trainings filled it first: the bits are the same.
    warm = ActivationCache()
    fine_tune(model, make_rows(32), task, recipe, seed=9, activations=warm)
    after = fine_tune(model, make_rows(16), task, recipe, seed=2, activations=warm)
    assert torch.equal(first.weights.flat, after.weights.flat)
    assert all(".layers.1." in name for name in first.weights.adapters)


@pytest.mark.parametrize(
    "labels", [("negative", "positive"), ("x", "xy", "xyz")], ids=["films", "shared beginnings"]
)
def test_scores_are_the_same_with_kept_activations(model, labels):
    task = Task("Text: {input}\nAnswer:", labels)
    rows = [Row(str(index), "good " * index, labels[index % 2]) for index in range(1, 9)]
    recipe = Recipe(exact_steps=2, trained_layers=1)
    shared = ActivationCache()
    student = fine_tune(model, rows, task, recipe, seed=1)
    alone = score_labels(model, rows, task, student.weights)
    cached = score_labels(model, rows, task, student.weights, activations=shared)
    assert shared.used_bytes > 0
    for one, other in zip(alone, cached, strict=True):
        assert one.label_log_probabilities == pytest.approx(other.label_log_probabilities, abs=1e-4)
    # What a prediction keeps is read by trainings too, so it must bear a gradient behind it.
    assert not any(kept.is_inference() for kept in shared._stored.values())


def test_micro_batches_give_the_gradient_of_the_whole_batch(model, task):
    whole = fine_tune(model, make_rows(32), task, Recipe(exact_steps=3), seed=4)
    parts = fine_tune(
        model, make_rows(32), task, Recipe(exact_steps=3, micro_batch_tokens=40), seed=4
    )
    torch.testing.assert_close(whole.weights.flat, parts.weights.flat, rtol=1e-2, atol=1e-4)
    assert whole.losses == pytest.approx(parts.losses, rel=1e-4)


def test_average_share_is_the_mean_of_the_last_weights(model, task):
    seen = []

    def keep(weights):
        original = weights.refresh

        def refresh():
            seen.append(weights.flat.clone())
            original()

        weights.refresh = refresh

    import tutelage_student.train as train

    make = train.new_weights

    def watched(*arguments):
        weights = make(*arguments)
        keep(weights)
        return weights

    train.new_weights = watched
    try:
        student = fine_tune(
            model, make_rows(16), task, Recipe(exact_steps=8, average_share=0.5), seed=1
        )
    finally:
        train.new_weights = make
    steps = seen[1:9]
    torch.testing.assert_close(student.weights.flat, torch.stack(steps[4:]).mean(0))


def test_continues_from_a_start(model, task):
    first = fine_tune(model, make_rows(32), task, LORA, seed=1)
    second = fine_tune(model, make_rows(32), task, LORA, seed=2, start=first.weights)
    assert second.losses[0] < first.losses[0] / 4
    with pytest.raises(StudentError, match="start_checkpoint_uri"):
        fine_tune(model, make_rows(8), task, FULL, seed=1, start=first.weights)


def test_too_long_rows_are_reported_and_not_cut(model, task):
    rows = [*make_rows(4), Row("long", "good " * 200, "positive")]
    student = fine_tune(model, rows, task, Recipe(exact_steps=1), seed=1)
    assert student.too_long_row_ids == ("long",)
    answers = score_labels(model, rows, task)
    assert [answer.too_long for answer in answers] == [False] * 4 + [True]
    with pytest.raises(StudentError, match="rows: none to train on"):
        fine_tune(model, rows[-1:], task, Recipe(exact_steps=1), seed=1)


def test_schedule_warms_up_to_the_peak_and_decays_to_nearly_zero():
    recipe = Recipe(learning_rate=1.0, warmup_share=0.1)
    rates = [recipe.learning_rate_at(step, 100) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert 0 < rates[-1] < 0.001
    assert Recipe(epochs=3, batch_rows=8).total_steps(20) == 8
    assert Recipe(epochs=1, min_steps=50).total_steps(20) == 50
    assert Recipe(epochs=9, min_steps=50, exact_steps=2).total_steps(20) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("lora_rank", 0), ("learning_rate", float("nan")), ("batch_rows", 0), ("average_share", 2)],
)
def test_recipe_names_the_wrong_field(field, value):
    with pytest.raises(StudentError, match=f"recipe.{field}: .*; use"):
        Recipe(**{field: value})
