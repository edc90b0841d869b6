"""Being out of memory: how it is told from other failures, and what a caller learns of it."""

import torch

from tutelage_student.errors import Code, StudentError

# The CPU's allocator and cuBLAS have no error class of their own: a RuntimeError with such a text
# (c10/core/impl/alloc_cpu.cpp, c10/util/Exception.h, ATen/cuda/CUDABlas.cpp).
_TEXTS = ("DefaultCPUAllocator", "std::bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def out_of_memory(field: str, problem: str, fix: str) -> StudentError:
    """A RESOURCE_EXHAUSTED that names the field that would need less memory."""
    return StudentError(Code.RESOURCE_EXHAUSTED, f"{field}: out of memory {problem}; {fix}")
