"""POST /v1/messages and /v1/messages/count_tokens: the gateway for clients of Anthropic's API."""

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from lexora.api.http import JSON_TYPE, Later, credential_of, headers_of, read_body, require_json, send
from lexora.api.lifetime import Lifetime
from lexora.api.openapi import UPSTREAM, Doc, Row
from lexora.core.auth import CHALLENGE, NO_KEY, Auth
from lexora.core.errors import ClientLeft, LexoraError, Unauthorized
from lexora.core.gateway import Gateway
from lexora.core.record import Record, RequestIds

log = logging.getLogger("lexora")


def messages_table(completions: Callable[..., ASGIApp], count_tokens: ASGIApp) -> list[Row]:
    """The rows of the route table. `completions` makes an endpoint that completes."""

    def messages() -> ASGIApp:
        from lexora.providers.messages_door import MessagesDoor

        return completions(endpoint="messages", door=MessagesDoor())

    return [
        ("POST", "/v1/messages", Later(messages), _messages_doc),
        ("POST", "/v1/messages/count_tokens", count_tokens, _count_tokens_doc),
    ]


class CountTokensEndpoint:
    """How many tokens a request's prompt has. `x-lexora-tokens` says whether they are counted or estimated.

    No model runs, nothing is billed, and so nothing is recorded; models that a caller may not use it may not ask here.
    """

    def __init__(self, gateway: Gateway, auth: Auth, request_ids: RequestIds, max_body_bytes: int) -> None:
        self._gateway = gateway
        self._auth = auth
        self._request_ids = request_ids
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send_: Send) -> None:
        from lexora.providers.messages_door_errors import error_body

        now = time.time()
        record = Record(self._request_ids.new(now), now, "messages.count_tokens")  # for the upstream, which is told it
        status, headers = 200, [JSON_TYPE, *((name, record.request_id.encode()) for name in _ID_HEADERS)]
        try:
            tokens, counted = await self._count(scope, receive, record)
            headers.append((b"x-lexora-tokens", b"counted" if counted else b"estimated"))
            body = msgspec.json.encode({"input_tokens": tokens})
        except LexoraError as error:
            status, body = error.status, error_body(error, record.request_id)
            headers += error.headers
        except ClientLeft:
            raise
        except Exception:
            log.exception("unexpected error in request %s", record.request_id)
            unexpected = LexoraError("Something went wrong inside the gateway.", code="internal_error")
            status, body = unexpected.status, error_body(unexpected, record.request_id)
        await send(scope, send_, status, headers, body)

    async def _count(self, scope: Scope, receive: Receive, record: Record) -> tuple[int, bool]:
        from lexora.providers.messages_door_request import chat_request

        headers = headers_of(scope)
        require_json(headers)
        body = await read_body(scope, receive, self._max_body_bytes)
        caller = await self._auth.identify(credential_of(headers))
        if caller is None:
            raise Unauthorized(NO_KEY, headers=CHALLENGE)
        request = chat_request(body, counted=True)
        request.betas = headers.get(b"anthropic-beta", b"")
        record.trace_parent = headers.get(b"traceparent", b"").decode("latin-1")
        with Lifetime(receive, asyncio.get_running_loop()):
            return await self._gateway.count_tokens(request, caller, record)


_ID_HEADERS = (b"x-request-id", b"request-id")


class AnthropicErrorDetail(msgspec.Struct):
    type: str
    message: str


class AnthropicErrorEnvelope(msgspec.Struct, tag_field="type", tag="error"):
    """Every error of these two has this form."""

    error: AnthropicErrorDetail
    request_id: str | None


def _messages_doc() -> Doc:
    from lexora.providers.messages_door_request import MessagesRequest

    summary = "The same in the form of Anthropic's Messages API."
    return Doc(summary, MessagesRequest, completes=True, error=AnthropicErrorEnvelope)


def _count_tokens_doc() -> Doc:
    from lexora.providers.messages_door_request import CountedRequest

    summary = "How many tokens the prompt of such a request has."
    return Doc(summary, CountedRequest, error=AnthropicErrorEnvelope, errors=UPSTREAM)
