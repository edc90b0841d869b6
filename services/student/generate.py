"""Generates the Python code of the contracts from ../../proto; run after each change there.

The result goes to tutelage_student/generated, which is not committed.
"""

import shutil
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"
TARGET = HERE / "tutelage_student" / "generated"
CONTRACTS = ("tutelage/task/v1/task.proto", "tutelage/student/v1/student.proto")


def main() -> int:
    """Replaces the generated folder; returns protoc's exit status."""
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    return int(
        protoc.main(
            [
                "protoc",
                f"--proto_path={PROTO}",
                f"--proto_path={files('grpc_tools') / '_proto'}",
                f"--python_out={TARGET}",
                f"--pyi_out={TARGET}",
                f"--grpc_python_out={TARGET}",
                *CONTRACTS,
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main())
