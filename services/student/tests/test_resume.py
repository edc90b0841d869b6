import dataclasses

import pytest
import torch
from conftest import make_rows

from tutelage_student import resumepoint
from tutelage_student.activations import ActivationCache
from tutelage_student.errors import StudentError
from tutelage_student.model import load
from tutelage_student.predict import score_labels
from tutelage_student.recipe import Recipe
from tutelage_student.resumepoint import ResumePoint, Resumption
from tutelage_student.train import fine_tune

STEPS = 7
# Eleven rows in batches of four: the order of rows runs over the ends of passes.
ROWS = make_rows(11)
RECIPES = {
    "dropout and averaging": Recipe(
        exact_steps=STEPS, batch_rows=4, lora_dropout=0.2, average_share=0.5, weight_decay=0.01
    ),
    "one layer, kept activations": Recipe(exact_steps=STEPS, batch_rows=4, trained_layers=1),
    "full": Recipe(method="full", exact_steps=STEPS, batch_rows=4, average_share=0.3),
    "micro-batches": Recipe(exact_steps=STEPS, batch_rows=4, micro_batch_tokens=30),
}
DROPOUT = RECIPES["dropout and averaging"]


def train(model, task, recipe, resumption=None, **more):
    return fine_tune(model, ROWS, task, recipe, seed=5, resumption=resumption, **more)


def points_of(model, task, recipe, folder, **more):
    """A whole training that leaves a point after every step but the last, and these points."""
    points = []
    resumption = Resumption(folder, every_steps=1, on_point=points.append)
    return train(model, task, recipe, resumption, **more), points


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_goes_on_from_any_step_to_the_same_bits(model, task, recipe, tmp_path):
    plain = train(model, task, recipe)
    whole, points = points_of(model, task, recipe, tmp_path)
    assert torch.equal(whole.weights.flat, plain.weights.flat)
    assert [point.step for point in points] == list(range(1, STEPS))
    for point in points:
        # As in another process: no cache, and global streams that stand elsewhere.
        torch.manual_seed(point.step)
        starts, steps = [], []
        resumed = train(
            model,
            task,
            recipe,
            Resumption(None, [point]),
            activations=ActivationCache(),
            on_start=starts.append,
            on_step=steps.append,
        )
        assert starts[0].resumed_step == point.step
        assert [step.step for step in steps] == list(range(point.step + 1, STEPS + 1))
        assert torch.equal(resumed.weights.flat, plain.weights.flat)
        assert resumed.losses == plain.losses
        assert resumed.trained_tokens == plain.trained_tokens


def test_goes_on_to_the_same_bits_in_bfloat16_too(model_folder, task, tmp_path):
    model = load(f"file:{model_folder}", tmp_path / "home", device="cpu", dtype=torch.bfloat16)
    for name in ("dropout and averaging", "one layer, kept activations"):
        whole, points = points_of(model, task, RECIPES[name], tmp_path / name)
        for point in points[1::2]:
            torch.manual_seed(point.step)
            resumed = train(model, task, RECIPES[name], Resumption(None, [point]))
            assert torch.equal(resumed.weights.flat, whole.weights.flat)


def test_a_killed_training_may_be_killed_again(model, task, tmp_path):
    plain = train(model, task, DROPOUT)
    _, points = points_of(model, task, DROPOUT, tmp_path / "first")
    again = []
    train(
        model,
        task,
        DROPOUT,
        Resumption(tmp_path / "second", points[1:2], every_steps=2, on_point=again.append),
    )
    assert [point.step for point in again] == [4, 6]
    last = train(model, task, DROPOUT, Resumption(None, again[:1]))
    assert torch.equal(last.weights.flat, plain.weights.flat)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(cut, "digest"), (flip, "digest"), (lambda path: path.unlink(), "No such file")],
    ids=["half", "altered", "gone"],
)
def test_a_damaged_point_falls_back_to_the_one_before_then_to_the_start(
    model, task, tmp_path, damage, reason
):
    whole, points = points_of(model, task, DROPOUT, tmp_path)
    newest_first = points[:3][::-1]
    for resumed_step in (2, 1, 0):
        damage(newest_first[2 - resumed_step].path)
        starts = []
        resumed = train(
            model, task, DROPOUT, Resumption(None, newest_first), on_start=starts.append
        )
        assert starts[0].resumed_step == resumed_step
        assert len(starts[0].unusable_points) == 3 - resumed_step
        assert all(reason in why for why in starts[0].unusable_points)
        assert torch.equal(resumed.weights.flat, whole.weights.flat)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 6},
        {"rows": make_rows(11, seed=1)},
        {"recipe": dataclasses.replace(DROPOUT, learning_rate=2e-3)},
        {"recipe": dataclasses.replace(DROPOUT, lora_rank=4)},
        {"recipe": RECIPES["full"]},
        {"start": True},
    ],
    ids=["seed", "rows", "rate", "rank", "method", "start"],
)
def test_a_point_of_another_training_is_passed_over(model, task, tmp_path, change):
    whole, points = points_of(model, task, DROPOUT, tmp_path)
    if change.get("start"):
        change = {"start": whole.weights}
    arguments = {"rows": ROWS, "recipe": DROPOUT, "seed": 5, **change}
    other = fine_tune(model, task=task, **arguments)
    starts = []
    resumed = fine_tune(
        model,
        task=task,
        resumption=Resumption(None, points[-1:]),
        on_start=starts.append,
        **arguments,
    )
    assert starts[0].resumed_step == 0
    assert "belongs to a training of other rows" in starts[0].unusable_points[0]
    assert torch.equal(resumed.weights.flat, other.weights.flat)


def test_a_file_with_the_right_digest_that_is_no_point_is_passed_over(model, task, tmp_path):
    whole, points = points_of(model, task, DROPOUT, tmp_path)
    cut(points[0].path)
    torn = ResumePoint(points[0].path, resumepoint.file_sha256(points[0].path), 1)
    starts = []
    resumed = train(model, task, DROPOUT, Resumption(None, [torn]), on_start=starts.append)
    assert starts[0].resumed_step == 0
    assert torch.equal(resumed.weights.flat, whole.weights.flat)


def test_points_come_by_time_and_cost_a_fiftieth_at_most(model, task, tmp_path):
    now = 0.0
    taken = []

    def pass_time(_step):
        nonlocal now
        now += 10

    def cost():
        # Writing takes 3 s, so that the next point is not due within 150 s.
        nonlocal now
        now += 3

    resumption = Resumption(
        tmp_path,
        every_seconds=60,
        permitted=cost,
        on_point=lambda point: taken.append(point.step),
        clock=lambda: now,
    )
    recipe = dataclasses.replace(DROPOUT, exact_steps=40)
    train(model, task, recipe, resumption, on_step=pass_time)
    assert taken == [6, 21, 36]


def test_a_short_training_leaves_none_and_one_that_is_being_stopped_does(model, task, tmp_path):
    taken = []
    train(model, task, DROPOUT, Resumption(tmp_path / "a", on_point=taken.append))
    assert taken == []
    assert not (tmp_path / "a").exists()
    stopping = []

    def pause():
        if stopping:
            raise StudentError("UNAVAILABLE", "stopping")

    resumption = Resumption(tmp_path / "b", wanted=lambda: bool(stopping), on_point=taken.append)
    with pytest.raises(StudentError, match="stopping"):
        train(
            model,
            task,
            DROPOUT,
            resumption,
            on_step=lambda step: stopping.append(1) if step.step == 3 else None,
            pause=pause,
        )
    assert [point.step for point in taken] == [3]
    resumed = train(model, task, DROPOUT, Resumption(None, taken))
    assert torch.equal(resumed.weights.flat, train(model, task, DROPOUT).weights.flat)


def test_a_refused_point_ends_the_training_and_leaves_no_file(model, task, tmp_path):
    def refuse():
        raise StudentError("FAILED_PRECONDITION", "fence: fence_is_old")

    with pytest.raises(StudentError, match="fence_is_old"):
        train(model, task, DROPOUT, Resumption(tmp_path, every_steps=2, permitted=refuse))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_point_is_told_and_the_training_goes_on(model, task, tmp_path):
    (tmp_path / "file").write_text("where a folder should be")
    failures = []
    resumption = Resumption(
        tmp_path / "file/resume",
        every_steps=3,
        on_failure=lambda step, reason: failures.append((step, "Not a directory" in reason)),
    )
    student = train(model, task, DROPOUT, resumption)
    assert torch.equal(student.weights.flat, train(model, task, DROPOUT).weights.flat)
    assert failures == [(3, True), (6, True)]


def test_predictions_between_steps_do_not_change_a_resumed_training(model, task, tmp_path):
    whole, points = points_of(model, task, DROPOUT, tmp_path)
    resumed = train(
        model,
        task,
        DROPOUT,
        Resumption(None, points[2:3]),
        pause=lambda: score_labels(model, make_rows(3), task, whole.weights),
    )
    assert torch.equal(resumed.weights.flat, whole.weights.flat)
