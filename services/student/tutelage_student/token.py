"""The shared token: every call but a health check must show it, where there is one."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

HEALTH = "/grpc.health.v1.Health/"


class TokenInterceptor:
    """Refuses calls without the token, with UNAUTHENTICATED."""

    def __init__(self, token: str) -> None:
        self._expected = token.encode()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Looks at the metadata before any handler is called."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(HEALTH):
            return handler
        given = str(dict(handler_call_details.invocation_metadata).get("authorization", ""))
        scheme, _, shown = given.partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(
            shown.strip().encode(), self._expected
        ):
            return handler
        return _refusing(handler)


# Said so, not inherited: grpc comes without types, and a class below Any would be checked no more.
grpc.aio.ServerInterceptor.register(TokenInterceptor)


def _refusing(handler: Any) -> Any:
    """A handler of the same kind that refuses."""

    async def refuse(_request: Any, context: Any) -> None:
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED,
            "the shared token is missing or wrong; send the metadata authorization: Bearer TOKEN",
        )

    kind = (
        grpc.unary_stream_rpc_method_handler
        if handler.response_streaming
        else grpc.unary_unary_rpc_method_handler
    )
    if handler.request_streaming:
        kind = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
    return kind(refuse, handler.request_deserializer, handler.response_serializer)
