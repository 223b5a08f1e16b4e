"""Errors that an endpoint lets out, and those of the router, mapped once."""

import logging
from random import SystemRandom

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from lexora.api.http import JSON_TYPE, send, send_json
from lexora.core.errors import ClientLeft, LexoraError, MethodNotAllowed, NotFound

# APIs whose errors have another form.
_QUERY_PATHS = "/api/v1/llm/"
_MESSAGES_PATHS = "/v1/messages"

log = logging.getLogger("lexora")

# Not the module's own, whose state the copies of a process share (Lambda's SnapStart).
_random = SystemRandom()


class ErrorLayer:
    """Answers errors in OpenAI's envelope, and OPTIONS with the methods that a path knows."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send_: Send) -> None:
        scope["app"] = self  # Starlette's router then raises HTTPException instead of answering in plain text
        try:
            await self._app(scope, receive, send_)
        except ClientLeft:
            return
        except HTTPException as error:
            allow = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            if error.status_code == 405 and scope["method"] == "OPTIONS":
                # With a body: the Lambda Web Adapter has been seen not to end a streamed response that has none.
                methods = f"{allow}, OPTIONS"
                await send_json(scope, send_, 200, {"allow": methods.split(", ")}, [(b"allow", methods.encode())])
                return
            await _send_error(scope, send_, _of_router(error, scope, allow))
        except LexoraError as error:
            await _send_error(scope, send_, error)
        except Exception:
            log.exception("unexpected error at %s %s", scope["method"], scope["path"])
            # Should the response be half out already, this raises and the server cuts it: nobody takes it for whole.
            await _send_error(
                scope, send_, LexoraError("Something went wrong inside the gateway.", code="internal_error")
            )


def _of_router(error: HTTPException, scope: Scope, allow: str) -> LexoraError:
    method, path = scope["method"], scope["path"]
    if error.status_code == 405:
        return MethodNotAllowed(
            f"{path} does not take {method}, only {allow}.", headers=((b"allow", f"{allow}, OPTIONS".encode()),)
        )
    return NotFound(f"There is nothing at {method} {path}. See /docs for what there is.")


async def _send_error(scope: Scope, send_: Send, error: LexoraError) -> None:
    request_id = f"{_random.getrandbits(128):032x}"
    headers = [(b"x-request-id", request_id.encode()), *error.headers]
    if scope["path"].startswith(_MESSAGES_PATHS):
        from lexora.providers.messages_door_errors import error_body

        headers.append((b"request-id", request_id.encode()))
        await send(scope, send_, error.status, [JSON_TYPE, *headers], error_body(error, request_id))
        return
    body = {"detail": error.message} if scope["path"].startswith(_QUERY_PATHS) else error.envelope()
    await send_json(scope, send_, error.status, body, headers)
