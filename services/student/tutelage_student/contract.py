"""The generated contract. protoc writes absolute imports from `tutelage.`, so its folder joins the
import path here, and only here."""

import sys
from pathlib import Path

_GENERATED = Path(__file__).resolve().parent / "generated"
if not _GENERATED.is_dir():
    raise ImportError("contracts are not generated; run `python services/student/generate.py`")
sys.path.append(str(_GENERATED))

from tutelage.student.v1 import student_pb2, student_pb2_grpc  # noqa: E402
from tutelage.task.v1 import task_pb2  # noqa: E402

__all__ = ["student_pb2", "student_pb2_grpc", "task_pb2"]
