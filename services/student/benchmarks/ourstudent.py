"""Our side of `iteration`: student processes, asked over gRPC as our services ask them."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import grpc

from tutelage_student.contract import student_pb2, student_pb2_grpc, task_pb2
from tutelage_student.recipe import Recipe
from tutelage_student.task import Row, Task

T = TypeVar("T")


class OurStudent:
    """A client of one student process. name: tells its runs from another student's."""

    def __init__(self, name: str, stub: Any, artifacts: Path, model: str, task: Task) -> None:
        self._name = name
        self._stub = stub
        self._artifacts = artifacts
        self._model = model
        self._task = task_pb2.Task(
            name="bench",
            kind=task_pb2.TASK_KIND_CLASSIFICATION,
            prompt_template=task.prompt_template,
            labels=[task_pb2.Label(name=label) for label in task.labels],
        )
        self._runs = 0

    def publish(self, rows: Sequence[Row]) -> Any:
        """Writes rows as a version's artifact."""
        lines = [
            json.dumps({"id": row.id, "input": row.input, "output": row.output, "split": "train"})
            for row in rows
        ]
        data = "".join(f"{line}\n" for line in lines).encode()
        digest = hashlib.sha256(data).hexdigest()
        path = self._artifacts / f"{digest}.jsonl"
        path.write_bytes(data)
        return task_pb2.RowSource(uri=path.as_uri(), sha256=digest)

    def train(self, source: Any, without: Sequence[str], recipe: Recipe, seed: int) -> str:
        """Trains without these rows; gives the checkpoint's URI."""
        run_id = self._next_run()
        rows = task_pb2.RowSource()
        rows.CopyFrom(source)
        rows.exclude_root_row_ids.extend(without)
        request = student_pb2.TrainRequest(
            run_id=run_id,
            fence=1,
            model=self._model,
            recipe=student_pb2.Recipe(**{**vars(recipe), "method": student_pb2.TUNING_METHOD_LORA}),
            rows=rows,
            task=self._task,
            seed=seed,
            output_uri=(self._artifacts / "runs" / run_id / "1").as_uri(),
        )
        uri = ""
        for event in self._stub.Train(request, timeout=3600):
            uri = event.checkpoint.uri or uri
        return uri

    def answer(self, checkpoint: str, source: Any, row_ids: Sequence[str] = ()) -> list[str]:
        """The likeliest label of each of these rows, in the artifact's order."""
        rows = task_pb2.RowSource()
        rows.CopyFrom(source)
        rows.row_ids.extend(row_ids)
        request = student_pb2.PredictRequest(
            run_id=self._next_run(),
            fence=1,
            model=self._model,
            checkpoint_uri=checkpoint,
            rows=rows,
            task=self._task,
            decoding=student_pb2.Decoding(score_labels=True),
        )
        return [
            prediction.text
            for message in self._stub.Predict(request, timeout=3600)
            for prediction in message.predictions
        ]

    def _next_run(self) -> str:
        self._runs += 1
        return f"bench-{self._name}-{self._runs}"


class OurStudents:
    """Students that share their artifacts; each does one thing at a time."""

    def __init__(self, students: Sequence[OurStudent]) -> None:
        self.first = students[0]
        self._free: SimpleQueue[OurStudent] = SimpleQueue()
        for student in students:
            self._free.put(student)
        self._most = len(students)

    def side_by_side(self, jobs: Sequence[Callable[[OurStudent], T]]) -> list[T]:
        """Each job with a student that is free; what they give, in order."""

        def take_and_do(job: Callable[[OurStudent], T]) -> T:
            student = self._free.get()
            try:
                return job(student)
            finally:
                self._free.put(student)

        with ThreadPoolExecutor(self._most) as pool:
            return list(pool.map(take_and_do, jobs))


@contextmanager
def our_students(
    folder: Path, home: Path, model: str, task: Task, threads: int
) -> Iterator[OurStudents]:
    """As `npm start` runs them: two that share the threads out where there are two or more.

    Their artifacts lie below `folder`; they have loaded the model.
    """
    count = 2 if threads > 1 else 1
    artifacts = folder / "artifacts"
    artifacts.mkdir(parents=True)
    with ExitStack() as students:
        yield OurStudents(
            [
                students.enter_context(
                    _student(f"{number}", artifacts, folder, home, model, task, threads // count)
                )
                for number in range(count)
            ]
        )


@contextmanager
def _student(
    name: str, artifacts: Path, folder: Path, home: Path, model: str, task: Task, threads: int
) -> Iterator[OurStudent]:
    log = folder / f"student-{name}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tutelage_student"],
            cwd=Path(__file__).parents[1],
            env={
                **os.environ,
                "STUDENT_LISTEN": "127.0.0.1:0",
                "STUDENT_ARTIFACT_ROOT": str(artifacts),
                "STUDENT_DEVICE": "cpu",
                "STUDENT_THREADS": str(threads),
                "TUTELAGE_HOME": str(home),
                "TUTELAGE_TOKEN": "",
                "TUTELAGE_TOKEN_FILE": "",
            },
            stdin=subprocess.PIPE,
            stdout=errors,
            stderr=errors,
        )
    try:
        port = _port(process, log)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = student_pb2_grpc.StudentServiceStub(channel)
            stub.ResolveModel(student_pb2.ResolveModelRequest(model=model), timeout=600)
            yield OurStudent(name, stub, artifacts.resolve(), model, task)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """Waits until the process says where it listens."""
    while True:
        ended = process.poll() is not None
        for line in log.read_text(encoding="utf-8").splitlines():
            if '"listening"' in line:
                return int(json.loads(line)["port"])
        if ended:
            raise RuntimeError(f"the student did not start: {log.read_text(encoding='utf-8')}")
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
