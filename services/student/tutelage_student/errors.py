"""The one error class of the student, with the fixed codes it can answer with."""

from enum import StrEnum

# Why a call ended that the student's own end cut short.
STOPPING = "the student is stopping; try again later"


class Code(StrEnum):
    """What went wrong, named as gRPC names it (`service.py` maps them one to one)."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    DATA_LOSS = "DATA_LOSS"
    CANCELLED = "CANCELLED"
    UNAVAILABLE = "UNAVAILABLE"


class StudentError(Exception):
    """A failure the caller can act on; `message` reads "field: what is wrong; fix"."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(field: str, problem: str, fix: str) -> StudentError:
    """An INVALID_ARGUMENT that names the field, what is wrong with it and what would be right."""
    return StudentError(Code.INVALID_ARGUMENT, f"{field}: {problem}; {fix}")
