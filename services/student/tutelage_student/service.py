"""The gRPC service: thin handlers over the worker; the only place where errors become statuses."""

import asyncio
import platform
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import torch

from tutelage_student.contract import student_pb2, student_pb2_grpc
from tutelage_student.device import Device
from tutelage_student.errors import STOPPING, Code, StudentError, invalid
from tutelage_student.fences import Fences
from tutelage_student.files import disk_fault
from tutelage_student.log import logger
from tutelage_student.memory import is_out_of_memory, out_of_memory
from tutelage_student.model import fastest_base_dtype
from tutelage_student.requests import export_job, predict_job, train_job
from tutelage_student.settings import Settings
from tutelage_student.worker import Worker

_END = object()


class StudentService(student_pb2_grpc.StudentServiceServicer):
    """Implements student.proto, where each call is described."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = Device()
        self.fences = Fences()
        self.worker = Worker(settings, self.device, self.fences)
        self.stopping = asyncio.Event()

    async def GetDevice(self, request: Any, context: Any) -> student_pb2.GetDeviceResponse:
        """What the process runs on."""
        cuda = self.settings.device != "cpu" and torch.cuda.is_available()
        device = torch.device("cuda" if cuda else "cpu")
        wanted = self.settings.base_dtype
        dtype = str(fastest_base_dtype(device)) if wanted == "auto" else wanted
        return student_pb2.GetDeviceResponse(
            device=device.type,
            name=torch.cuda.get_device_name() if cuda else _processor_name(),
            base_dtype=dtype.removeprefix("torch."),
            parallelism=torch.cuda.get_device_properties(0).multi_processor_count
            if cuda
            else self.settings.thread_count,
            loaded_models=self.worker.loaded_models,
            slot_holder=self.device.slot.holder,
        )

    async def ResolveModel(
        self, request: student_pb2.ResolveModelRequest, context: Any
    ) -> student_pb2.ResolveModelResponse:
        """Resolves and loads a model, between the steps of a running job."""
        async with _statuses(context):
            if not request.model:
                raise invalid("model", "empty", "give a model reference")
            work = self.device.submit(lambda: self.worker.resolve(request.model))
            return await asyncio.wrap_future(work)

    async def Train(
        self, request: student_pb2.TrainRequest, context: Any
    ) -> AsyncIterator[student_pb2.TrainEvent]:
        """Fine-tunes while the stream is open."""
        async with _statuses(context):
            job = train_job(request, self.settings.artifacts)
            self.fences.admit(job.run_id, job.fence)
            self.device.slot.take(f"train {job.run_id}")
            async for event in self._stream(
                lambda cancelled, emit: self.worker.train(job, cancelled, emit), exclusive=True
            ):
                yield event

    async def LeaveResumePoint(
        self, request: student_pb2.LeaveResumePointRequest, context: Any
    ) -> student_pb2.LeaveResumePointResponse:
        """Has the training leave a resume point after its step."""
        async with _statuses(context):
            self.worker.leave_resume_point(request.run_id, request.fence)
            return student_pb2.LeaveResumePointResponse()

    async def Predict(
        self, request: student_pb2.PredictRequest, context: Any
    ) -> AsyncIterator[student_pb2.PredictResponse]:
        """Predicts while the stream is open."""
        async with _statuses(context):
            job = predict_job(request, self.settings.artifacts)
            if job.run_id:
                self.fences.admit(job.run_id, job.fence)
            if not job.interactive:
                self.device.slot.take(f"predict {job.run_id}")
            async for event in self._stream(
                lambda cancelled, emit: self.worker.predict(job, cancelled, emit),
                exclusive=not job.interactive,
            ):
                yield event

    async def HoldSlot(
        self, request: student_pb2.HoldSlotRequest, context: Any
    ) -> AsyncIterator[student_pb2.HoldSlotResponse]:
        """Holds the slot until the caller goes or the student stops."""
        async with _statuses(context):
            if not request.holder:
                raise invalid("holder", "empty", "say who holds the slot and for what")
            self.device.slot.take(request.holder)
            try:
                yield student_pb2.HoldSlotResponse()
                await self.stopping.wait()
                raise StudentError(Code.UNAVAILABLE, STOPPING)
            finally:
                self.device.slot.free()

    async def ExportCheckpoint(
        self, request: student_pb2.ExportCheckpointRequest, context: Any
    ) -> AsyncIterator[student_pb2.ExportCheckpointEvent]:
        """Exports while the stream is open."""
        async with _statuses(context):
            job = export_job(request, self.settings.artifacts)
            self.fences.admit(job.run_id, job.fence)
            self.device.slot.take(f"export {job.run_id}")
            async for event in self._stream(
                lambda cancelled, emit: self.worker.export(job, cancelled, emit), exclusive=True
            ):
                yield event

    async def _stream(
        self,
        work: Callable[[threading.Event, Callable[[Any], None]], None],
        exclusive: bool,
    ) -> AsyncIterator[Any]:
        """Runs work on the device and yields what it emits; leaving early stops it.

        The slot is freed by the work's own end, not by the stream's: a job that still finishes its
        step when the caller has gone keeps others out until then.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Any] = asyncio.Queue()
        cancelled = threading.Event()

        def emit(event: object) -> None:
            if not cancelled.is_set():
                loop.call_soon_threadsafe(events.put_nowait, event)

        def end(_: object) -> None:
            if exclusive:
                self.device.slot.free()
            emit(_END)

        try:
            future = self.device.submit(lambda: work(cancelled, emit))
        except StudentError:
            if exclusive:
                self.device.slot.free()
            raise
        future.add_done_callback(end)
        try:
            while (event := await events.get()) is not _END:
                yield event
            future.result()
        finally:
            cancelled.set()
            # Work that waits is not begun; this does nothing to work that runs.
            future.cancel()

    def stop(self, timeout_seconds: float) -> None:
        """Ends running work within a step, then the device thread."""
        self.worker.stopping.set()
        self.device.stop(timeout_seconds)


@asynccontextmanager
async def _statuses(context: Any) -> AsyncIterator[None]:
    try:
        yield
    except StudentError as error:
        await context.abort(grpc.StatusCode[error.code.name], error.message)
    except (asyncio.CancelledError, GeneratorExit, grpc.aio.AbortError):
        raise
    except Exception as error:
        logger.exception("unexpected failure")
        if (fault := disk_fault(error)) is not None:
            await context.abort(grpc.StatusCode[fault.code.name], fault.message)
        if is_out_of_memory(error):
            exhausted = out_of_memory("model", "outside of a training step", "use a smaller one")
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, exhausted.message)
        await context.abort(grpc.StatusCode.INTERNAL, "unexpected failure; see the student's log")


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
