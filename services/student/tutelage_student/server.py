"""The process: settings, server with health and reflection, graceful stop."""

import asyncio
import os
import signal
import sys
import time
from typing import Any

import grpc
import torch
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tutelage_student import log
from tutelage_student.contract import student_pb2, student_pb2_grpc
from tutelage_student.errors import Code, StudentError
from tutelage_student.service import StudentService
from tutelage_student.settings import Settings
from tutelage_student.token import TokenInterceptor

NAME = student_pb2.DESCRIPTOR.services_by_name["StudentService"].full_name
# A row artifact is read from disk, so requests stay small: 256 inline rows of 64 kB.
MAX_MESSAGE_BYTES = 16 << 20
# A step ends in less on any device that trains at all; whoever stops us waits ten seconds at most.
GRACE_SECONDS = 6.0
STOP_SECONDS = 8.0
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Refuse a port that another student listens on, instead of sharing it.
    ("grpc.so_reuseport", 0),
    # A caller whose machine vanished is noticed, and its job stopped, after 40 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
]


class Server:
    """A student that listens; `port` is the one it got where 0 was asked for."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(settings.thread_count)
        self.service = StudentService(settings)
        token = settings.shared_token
        interceptors = [] if token is None else [TokenInterceptor(token)]
        self._server = grpc.aio.server(interceptors=interceptors, options=OPTIONS)
        self._health = health.aio.HealthServicer()
        # Generated code has no annotations.
        add_student: Any = student_pb2_grpc.add_StudentServiceServicer_to_server
        add_student(self.service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        try:
            self.port = self._server.add_insecure_port(settings.listen)
        except RuntimeError as error:
            raise StudentError(
                Code.UNAVAILABLE, f"STUDENT_LISTEN: cannot bind {settings.listen}; free the port"
            ) from error

    async def start(self) -> None:
        """Listens."""
        await self._server.start()
        for name in ("", NAME):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Refuses new calls, frees the slot, stops jobs within a step, and ends in STOP_SECONDS."""
        until = time.monotonic() + STOP_SECONDS
        await self._health.enter_graceful_shutdown()
        self.service.stopping.set()
        self.service.worker.stopping.set()
        await self._server.stop(GRACE_SECONDS)
        await asyncio.to_thread(self.service.stop, max(0.0, until - time.monotonic()))


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT, or until the parent is gone where settings say so."""
    server = Server(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if settings.stop_with_stdin:
        # Nobody writes to it: readable means that the other end is gone.
        loop.add_reader(sys.stdin.fileno(), stop.set)
    await server.start()
    log.info("listening", port=server.port, threads=settings.thread_count, process_id=os.getpid())
    await stop.wait()
    if settings.stop_with_stdin:
        loop.remove_reader(sys.stdin.fileno())
    log.info("stopping")
    await server.stop()
