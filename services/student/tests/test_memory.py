import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_rows
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage_student import train
from tutelage_student.errors import Code, StudentError
from tutelage_student.examples import encode
from tutelage_student.gradient import accumulate_gradient
from tutelage_student.recipe import Recipe
from tutelage_student.resumepoint import Resumption
from tutelage_student.task import Encoder
from tutelage_student.train import SmallerMicroBatch

ROWS = make_rows(8)
LORA = Recipe(exact_steps=3, batch_rows=8, lora_dropout=0.2)
FULL = Recipe(method="full", exact_steps=3, batch_rows=8)
LAYER = Recipe(exact_steps=3, batch_rows=8, trained_layers=1)


class FailingAllocation(TorchDispatchMode):
    """Fails the n-th operation (from 1) that takes memory of its own, forward or backward."""

    def __init__(self, number):
        super().__init__()
        self.number = number
        self.seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {
            value.untyped_storage().data_ptr() for value in args if isinstance(value, torch.Tensor)
        }
        if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in given:
            self.seen += 1
            if self.seen == self.number:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB.")
        return out


def failing(mode):
    """The gradient, with the mode in force the first time."""

    def gradient(*arguments):
        if mode.seen:
            return accumulate_gradient(*arguments)
        with mode:
            return accumulate_gradient(*arguments)

    return gradient


def train_with(monkeypatch, model, task, recipe, gradient, **more):
    """A training whose gradients from its second step on are computed so, and what it said."""
    said, steps = [], []

    def accumulate(*arguments):
        return (gradient if steps else accumulate_gradient)(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "accumulate_gradient", accumulate)
        student = train.fine_tune(
            model, ROWS, task, recipe, 5, on_step=steps.append, on_smaller=said.append, **more
        )
    return student, said


@pytest.mark.parametrize("recipe", [LORA, FULL, LAYER], ids=["lora", "full", "one layer"])
def test_a_step_that_is_out_of_memory_anywhere_is_made_again_whole(
    monkeypatch, model, task, recipe
):
    counted = FailingAllocation(10**9)
    undisturbed, said = train_with(monkeypatch, model, task, recipe, failing(counted))
    assert said == []
    assert counted.seen > 50
    tokens = sum(len(one.ids) for one in encode(model, Encoder(model.tokenizer, task), ROWS)[0])
    smaller = SmallerMicroBatch(2, recipe.micro_batch_tokens, tokens // 2)

    def halved(model, weights, batch, _tokens, *more):
        return accumulate_gradient(model, weights, batch, smaller.to_tokens, *more)

    expected, _ = train_with(monkeypatch, model, task, recipe, halved)
    assert not torch.equal(expected.weights.flat, undisturbed.weights.flat)
    # A stride of 13 meets each kind of operation, forward and backward, in some layer.
    for number in [1, 2, *range(5, counted.seen, 13), counted.seen]:
        student, said = train_with(
            monkeypatch, model, task, recipe, failing(FailingAllocation(number))
        )
        assert said == [smaller], number
        assert torch.equal(student.weights.flat, expected.weights.flat), number
        assert student.losses == expected.losses


def test_what_was_learned_about_the_memory_survives_a_kill(monkeypatch, model, task, tmp_path):
    points = []
    keep = Resumption(tmp_path, every_steps=1, on_point=points.append)
    gradient = failing(FailingAllocation(30))
    whole, said = train_with(monkeypatch, model, task, LORA, gradient, resumption=keep)
    assert len(said) == 1
    resumed = train.fine_tune(
        model, ROWS, task, LORA, seed=5, resumption=Resumption(None, points[1:])
    )
    assert torch.equal(resumed.weights.flat, whole.weights.flat)


def test_halving_ends_with_single_rows_and_a_named_error(monkeypatch, model, task):
    said = []

    def gradient(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(train, "accumulate_gradient", gradient)
    with pytest.raises(StudentError, match="out of memory with one row") as raised:
        train.fine_tune(model, ROWS, task, LORA, seed=5, on_smaller=said.append)
    assert raised.value.code is Code.RESOURCE_EXHAUSTED
    sizes = [one.to_tokens for one in said]
    assert sizes == sorted(sizes, reverse=True)
    assert 2 <= len(said) <= 4


def test_other_failures_are_not_taken_for_a_lack_of_memory(monkeypatch, model, task):
    def gradient(*_arguments):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(train, "accumulate_gradient", gradient)
    with pytest.raises(RuntimeError, match="mat1"):
        train.fine_tune(model, ROWS, task, LORA, seed=5)


# After its first step the process may have 100 MB more, of which a whole batch's logits (210 rows
# of 100 tokens that bear loss, 512 float32 each) take 43 and their gradients as much again.
SCRIPT = """
import resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tutelage_student.model import load
from tutelage_student.recipe import Recipe
from tutelage_student.task import Row, Task
from tutelage_student.train import fine_tune

model = load(sys.argv[1], Path(sys.argv[2]), device="cpu", dtype=torch.float32)
rows = [Row(str(number), "x", " good" * 100) for number in range(210)]
recipe = Recipe(exact_steps=3, batch_rows=210, micro_batch_tokens=10**6, trained_layers=1)

def limit(step):
    if step.step == 1:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + (100 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

student = fine_tune(
    model, rows, Task("{input}"), recipe, seed=1, on_step=limit,
    on_smaller=lambda smaller: print("smaller", smaller.step, smaller.to_tokens),
)
print("steps", len(student.losses))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the address space")
def test_an_allocator_that_has_no_more_is_met_with_smaller_micro_batches(model_folder, tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, f"file:{model_folder}", str(tmp_path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    said = result.stdout.split("\n")
    assert said[0].startswith("smaller 2 "), result.stderr[-2000:]
    assert said[-2] == "steps 3"
