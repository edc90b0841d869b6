"""Fixtures: the tiny model, rows it can learn, and a student listening on a free port."""

import os

# Tests share the machine; busy waiting threads would slow each other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import tiny_model
import torch

from tutelage_student.contract import student_pb2, student_pb2_grpc, task_pb2
from tutelage_student.model import Model, load
from tutelage_student.task import Row, Task

LABELS = ("negative", "positive")
TEMPLATE = "Text: {input}\nSentiment:"
WORDS = {
    "positive": ("good", "great", "good and great"),
    "negative": ("bad", "awful", "bad and awful"),
}


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def model(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("home")
    return load(f"file:{model_folder}", home, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="session")
def task() -> Task:
    return Task(TEMPLATE, LABELS, name="films")


def make_rows(count: int, seed: int = 0) -> list[Row]:
    """Sentences whose label a single word decides."""
    draw = random.Random(seed)
    rows = []
    for index in range(count):
        label = LABELS[index % 2]
        subject = draw.choice(("film", "plot", "cast", "long novel", "tall tower"))
        filler = draw.choice(("", "the film and ", "where is the ", "who wrote "))
        text = f"{filler}the {subject} was {draw.choice(WORDS[label])}"
        rows.append(Row(f"{seed}-{index}", text, label))
    return rows


@dataclass
class Wire:
    """A client of a student process."""

    stub: Any
    channel: grpc.Channel
    artifacts: Path
    model: str

    def publish(self, rows: list[dict[str, Any]], name: str = "rows") -> task_pb2.RowSource:
        """Writes rows as an artifact."""
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path = self.artifacts / f"{name}.jsonl"
        path.write_bytes(data)
        return task_pb2.RowSource(uri=path.as_uri(), sha256=hashlib.sha256(data).hexdigest())

    def train_request(self, run_id: str, fence: int = 1, /, **changes: Any) -> Any:
        """A training that works; `changes` replace its fields, recipe__x those of the recipe."""
        recipe = {
            "method": student_pb2.TUNING_METHOD_LORA,
            "lora_rank": 8,
            "lora_alpha": 16,
            "exact_steps": 20,
            "batch_rows": 16,
            "micro_batch_tokens": 1024,
            "learning_rate": 1e-2,
            "max_grad_norm": 1.0,
        }
        for key in [key for key in changes if key.startswith("recipe__")]:
            recipe[key.removeprefix("recipe__")] = changes.pop(key)
        fields = {
            "run_id": run_id,
            "fence": fence,
            "model": self.model,
            "recipe": student_pb2.Recipe(**recipe),
            "task": wire_task(),
            "seed": 7,
            "output_uri": (self.artifacts / "runs" / run_id / str(fence)).as_uri(),
        }
        if "rows" not in changes:
            fields["rows"] = self.publish([as_json(row) for row in make_rows(64)], f"for-{run_id}")
        return student_pb2.TrainRequest(**{**fields, **changes})

    def predict_request(self, checkpoint_uri: str = "", **changes: Any) -> Any:
        """An interactive prediction over eight new rows."""
        fields: dict[str, Any] = {
            "model": self.model,
            "checkpoint_uri": checkpoint_uri,
            "task": wire_task(),
            "decoding": student_pb2.Decoding(score_labels=True),
            "interactive": True,
        }
        if "rows" not in changes:
            fields["inline_rows"] = [
                task_pb2.Row(id=row.id, input=row.input) for row in make_rows(8, 1)
            ]
        return student_pb2.PredictRequest(**{**fields, **changes})


def wire_task() -> task_pb2.Task:
    """The same task as the fixture `task`."""
    return task_pb2.Task(
        name="films",
        kind=task_pb2.TASK_KIND_CLASSIFICATION,
        prompt_template=TEMPLATE,
        labels=[task_pb2.Label(name=label) for label in LABELS],
    )


def as_json(row: Row, **more: Any) -> dict[str, Any]:
    """The row as it stands in an artifact."""
    return {"id": row.id, "input": row.input, "output": row.output, "split": "train", **more}


def start_student(artifacts: Path, home: Path, **variables: str) -> tuple[Any, int]:
    """A student process on a free port: the process and the port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tutelage_student"],
        cwd=Path(__file__).parents[1],
        env={
            **os.environ,
            "STUDENT_LISTEN": "127.0.0.1:0",
            "STUDENT_ARTIFACT_ROOT": str(artifacts),
            "TUTELAGE_HOME": str(home),
            "STUDENT_THREADS": "1",
            "STUDENT_DEVICE": "cpu",
            **variables,
        },
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if '"listening"' in line:
            return process, json.loads(line)["port"]
    raise AssertionError("the student did not start")


@pytest.fixture(scope="session")
def wire(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Wire]:
    artifacts = tmp_path_factory.mktemp("artifacts")
    process, port = start_student(artifacts, tmp_path_factory.mktemp("home"))
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    yield Wire(
        student_pb2_grpc.StudentServiceStub(channel), channel, artifacts, f"file:{model_folder}"
    )
    channel.close()
    process.terminate()
    assert process.wait(20) == 0
