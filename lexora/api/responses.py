"""/v1/responses: OpenAI's Responses API, and what is stored of responses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from lexora.api.http import JSON_TYPE, Later, credential_of, headers_of, send, send_json
from lexora.api.openapi import KEY, Doc, Row
from lexora.core.auth import CHALLENGE, NO_KEY, Auth
from lexora.core.errors import InvalidRequest, NotFound, Unauthorized
from lexora.core.keys import Caller
from lexora.core.ports import ResponseStore, StoredResponse
from lexora.core.responses import OwnResponses, owner_of

if TYPE_CHECKING:  # imported when somebody first comes through it
    from lexora.providers.responses_door import ResponsesDoor


# They are somebody's words: no cache between us and the client may keep them.
_NO_STORE = [(b"cache-control", b"no-store")]

log = logging.getLogger("lexora")


class _Nobodys(OwnResponses):
    """Those of somebody who has not said who it is: a prepared answer may be given all the same, and is not stored."""

    def get(self, response_id: str) -> StoredResponse | None:
        raise Unauthorized(NO_KEY, headers=CHALLENGE)

    def put(self, response_id: str, created_at: float, previous: str | None, items: bytes, response: bytes) -> bool:
        return False


def responses_table(completions: Callable[..., ASGIApp], store: ResponseStore | None, auth: Auth) -> list[Row]:
    """The rows of the route table. `completions` makes an endpoint that completes, `store` is where responses are."""

    def create() -> ASGIApp:
        from lexora.providers.responses_door import ResponsesDoor

        return completions(endpoint="responses.create", door=ResponsesDoor(), door_of=partial(_responses_door, store))

    stored = StoredResponseEndpoint(store, auth)
    doc = Doc(
        "A stored response.",
        parameters=(("id", "string", "a response's id"),),
        errors=KEY,
        query=(("x_user_id", "string", "whose it is, if a trusted key asks for somebody"),),
    )
    items_doc = doc._replace(
        summary="The items that a stored response was made of.",
        query=(
            *doc.query,
            ("limit", "integer", "at most so many, 1 to 100; 20 if it is left out"),
            ("order", "string", "asc, or desc: the latest first, as if it is left out"),
            ("after", "string", "the id of an item: those that come after it in that order"),
        ),
    )
    return [
        ("POST", "/v1/responses", Later(create), _responses_doc),
        ("GET", "/v1/responses/{id}", stored, doc),
        ("DELETE", "/v1/responses/{id}", stored, doc._replace(summary="Deletes a stored response.")),
        ("GET", "/v1/responses/{id}/input_items", InputItemsEndpoint(store, auth), items_doc),
    ]


def _responses_doc() -> Doc:
    from lexora.providers.responses_door_request import ResponsesFields

    return Doc("The same in the form of OpenAI's Responses API.", ResponsesFields, completes=True)


def _responses_door(store: ResponseStore | None, caller: Caller | None, _body: bytes) -> ResponsesDoor:
    """The door for one caller: what is stored of it, and nobody else's."""
    from lexora.providers.responses_door import ResponsesDoor

    if store is None:
        return ResponsesDoor()
    if caller is None:
        return ResponsesDoor(lambda _named: _Nobodys(store, "", log.error))
    return ResponsesDoor(lambda named: OwnResponses(store, owner_of(caller, named), log.error))


class _Stored:
    """What the endpoints of one stored response have in common. `store` is None where none are stored."""

    def __init__(self, store: ResponseStore | None, auth: Auth) -> None:
        self._store = store
        self._auth = auth

    async def _own(self, scope: Scope, query: Mapping[str, str]) -> OwnResponses:
        """The responses of whoever asks. Raises Unauthorized and NotFound."""
        caller = await self._auth.identify(credential_of(headers_of(scope)))
        if caller is None:
            raise Unauthorized(NO_KEY, headers=CHALLENGE)
        if self._store is None:
            raise NotFound(
                "This gateway stores no responses. Its config turns that on with 'responses: {store: true}', "
                "or on AWS the setting store_responses."
            )
        return OwnResponses(self._store, owner_of(caller, query.get("x_user_id")), log.error)


class StoredResponseEndpoint(_Stored):
    """Shows a stored response, or deletes it."""

    async def __call__(self, scope: Scope, receive: Receive, send_: Send) -> None:
        query = _query_of(scope)
        own = await self._own(scope, query)
        if query.get("stream", "false") != "false":
            message = "A stored response is whole and cannot be streamed again. Leave out 'stream'."
            raise InvalidRequest(message, param="stream", code="unsupported_parameter")
        response_id = str(scope["path_params"]["id"])
        if scope["method"] == "DELETE":
            if not own.delete(response_id):
                raise _not_found(response_id)
            deleted = {"id": response_id, "object": "response", "deleted": True}
            await send_json(scope, send_, 200, deleted, _NO_STORE)
            return
        found = own.get(response_id)
        if found is None:
            raise _not_found(response_id)
        await send(scope, send_, 200, [JSON_TYPE, *_NO_STORE], found.response)


class InputItemsEndpoint(_Stored):
    """Lists the items that a stored response was made of."""

    async def __call__(self, scope: Scope, receive: Receive, send_: Send) -> None:
        from lexora.providers.responses_door_listing import input_items, page_of

        query = _query_of(scope)
        own = await self._own(scope, query)
        response_id = str(scope["path_params"]["id"])
        found = input_items(own, response_id, page_of(query))
        if found is None:
            raise _not_found(response_id)
        await send_json(scope, send_, 200, found, _NO_STORE)


def _query_of(scope: Scope) -> dict[str, str]:
    """What follows the `?`; of what is said twice the last."""
    return {name: values[-1] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}


def _not_found(response_id: str) -> NotFound:
    return NotFound(f"There is no response '{response_id}' of yours, or it is not stored any more.")
