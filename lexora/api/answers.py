"""GET /responses/…: the catalogue and the prepared answers as the CDN serves them."""

import logging
import random
import time
import zlib
from functools import partial

import msgspec
from starlette.types import Receive, Scope, Send

from lexora.api.http import JSON_TYPE, Headers, dollars, headers_of, send
from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.core.errors import AnswersUnavailable, NotFound
from lexora.core.gateway import Gateway
from lexora.core.ports import Ledger
from lexora.core.record import Record, RequestIds

_CACHE = (b"cache-control", b"public, max-age=300, stale-while-revalidate=86400")
_NO_STORE = (b"cache-control", b"no-store")
_RANDOM = "random"

log = logging.getLogger("lexora")


class AnswerEndpoint:
    """One variant of a prepared prompt, `random` for any: `{"response": "…"}`. `q1` is short for `q1_capital`."""

    def __init__(self, gateway: Gateway, ledger: Ledger, request_ids: RequestIds) -> None:
        self._gateway = gateway
        self._ledger = ledger
        self._request_ids = request_ids

    async def __call__(self, scope: Scope, receive: Receive, send_: Send) -> None:
        started = time.perf_counter()
        prompt_id, variant = scope["path_params"]["id"], scope["path_params"]["k"]
        try:
            found = await self._gateway.answer_to(partial(_named_variant, prompt_id, variant))
        except OSError as error:
            log.error("the prepared answers cannot be read: %s", error)  # noqa: TRY400 - not a bug
            raise AnswersUnavailable("The prepared answers cannot be read at the moment. Try again soon.") from None
        if found is None:
            raise NotFound(f"There is no prepared answer {prompt_id}/{variant}.")
        entry, number, text = found
        body = msgspec.json.encode({"response": text})
        now = time.time()
        record = Record(
            self._request_ids.new(now),
            now,
            "responses",
            origin="edge",
            deployment=f"edge/{entry.id}/{number}",
        )
        headers = [
            _NO_STORE if variant == _RANDOM else _CACHE,
            (b"x-request-id", record.request_id.encode()),
            (b"x-lexora-origin", b"edge"),
            (b"x-lexora-deployment", record.deployment.encode()),
            (b"x-lexora-cost-usd", b"0"),
        ]
        record.saved_usd = self._gateway.saved(entry.prompt, text)
        if record.saved_usd is not None:
            headers.append((b"x-lexora-saved-usd", dollars(record.saved_usd)))
        record.status = await _send_unless_known(scope, send_, headers, body)
        record.duration_ms = record.ttft_ms = (time.perf_counter() - started) * 1e3
        self._ledger.add(record)


class CatalogueEndpoint:
    """What is prepared: `{"prompts": [{"id", "prompt", "aliases", "variants"}]}`, for clients that make URLs of it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._catalogue: Catalogue | None = None
        self._body = b""

    async def __call__(self, scope: Scope, receive: Receive, send_: Send) -> None:
        catalogue = self._gateway.catalogue()
        if catalogue is not self._catalogue:  # when first asked, after a reload, and when another was published
            self._catalogue, self._body = catalogue, msgspec.json.encode({"prompts": catalogue.prompts})
        await _send_unless_known(scope, send_, [_CACHE], self._body)


async def _send_unless_known(scope: Scope, send_: Send, headers: Headers, body: bytes) -> int:
    """Sends JSON with an etag, or 304 to a client that has it already. Returns the status."""
    etag = b'"%08x"' % zlib.crc32(body)
    headers = [(b"etag", etag), *headers]
    if headers_of(scope).get(b"if-none-match") == etag:
        await send_({"type": "http.response.start", "status": 304, "headers": headers})
        await send_({"type": "http.response.body", "body": b""})
        return 304
    await send(scope, send_, 200, [JSON_TYPE, *headers], body)
    return 200


def _named_variant(prompt_id: str, variant: str, catalogue: Catalogue) -> tuple[PreparedPrompt, int] | None:
    entry = catalogue.by_id(prompt_id)
    if entry is not None and variant == _RANDOM:
        return entry, int(random.random() * entry.variants)
    return (entry, int(variant)) if entry is not None and variant in map(str, range(entry.variants)) else None
