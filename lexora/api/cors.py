"""CORS (https://fetch.spec.whatwg.org/#http-cors-protocol): which web sites' scripts may read our responses."""

from collections.abc import Awaitable, Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lexora.api.http import headers_of

# Prepared answers are public, as they are on the CDN, and so is the module that fetches them.
_PUBLIC_PATHS = ("/responses/", "/try/")
EXPOSED = b", ".join(
    [
        *(b"x-request-id", b"x-lexora-origin", b"x-lexora-deployment", b"x-lexora-model", b"x-lexora-cost-usd"),
        *(b"x-lexora-saved-usd", b"x-lexora-cache", b"age"),
        *(b"x-lexora-queue-position", b"x-lexora-queue-wait-ms", b"x-lexora-tokens", b"request-id", b"retry-after"),
        *(b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"),
        *(b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"),
    ]
)


class CorsLayer:
    """Adds CORS headers for the origins that may have them; `*` stands for every origin.

    A preflight is an OPTIONS request like any other, answered below with the methods of its path. An origin that
    is not allowed gets no CORS headers, and its browser keeps the response from it.
    """

    def __init__(self, app: ASGIApp, allow_origins: Collection[str]) -> None:
        self._app = app
        self._any = "*" in allow_origins
        self._allowed = {origin.encode("latin-1") for origin in allow_origins}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # What is public is cached as well, so its headers are the same for all.
        if b"origin" in headers_of(scope) or scope["path"].startswith(_PUBLIC_PATHS):
            return self._answer_script(scope, receive, send)
        return self._app(scope, receive, send)

    async def _answer_script(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        origin = headers.get(b"origin")
        public = scope["path"].startswith(_PUBLIC_PATHS)
        everyone = self._any or public
        extra = [] if everyone else [(b"vary", b"Origin")]
        allowed = b"*" if everyone else origin if origin in self._allowed else None
        if allowed is not None:
            extra.append((b"access-control-allow-origin", allowed))
            extra.append((b"access-control-expose-headers", EXPOSED))
        scope.pop("extensions", None)  # a response that is sent in one go could not be added to
        preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in headers
        asked_headers = headers.get(b"access-control-request-headers")

        async def send_with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *extra]
                if preflight and allowed is not None:
                    allow = dict(message["headers"]).get(b"allow", b"")
                    message["headers"] += [
                        (b"access-control-allow-methods", allow),
                        (b"access-control-max-age", b"600"),
                    ]
                    if asked_headers:
                        message["headers"].append((b"access-control-allow-headers", asked_headers))
            await send(message)

        await self._app(scope, receive, send_with_cors)
