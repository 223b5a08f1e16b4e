"""OpenAI's other endpoints, and /api/v1/llm: the same way through the gateway as chat, by other doors."""

from collections.abc import Callable
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from lexora.api.http import Later, require_form, send_json
from lexora.api.openapi import Doc
from lexora.core.gateway import Gateway
from lexora.core.task import COMPLETIONS, EMBEDDINGS, IMAGES, RERANK, TRANSCRIPTIONS, Task

_Row = tuple[str, str, ASGIApp, Callable[[], Doc]]

_SUMMARIES = {
    COMPLETIONS: "A text completion, plain or (stream: true) as server-sent events.",
    EMBEDDINGS: "Embeddings of a text, of several, or of tokens.",
    RERANK: "Documents in the order of how well they answer a query.",
    IMAGES: "Images from a prompt.",
}


def surface_table(completions: Callable[..., ASGIApp], gateway: Gateway) -> list[_Row]:
    """The rows of the route table. `completions` makes an endpoint that answers by a door."""
    return [
        *(
            ("POST", f"/v1{task.path}", Later(partial(_endpoint, completions, task)), partial(_doc, task))
            for task in _SUMMARIES
        ),
        ("POST", f"/v1{TRANSCRIPTIONS.path}", Later(partial(_form_endpoint, completions)), _form_doc),
        ("POST", "/api/v1/llm/query", Later(partial(_query_endpoint, completions)), _query_doc),
        ("GET", "/api/v1/llm/models", _names_endpoint(gateway), lambda: Doc("The names of the models for a query.")),
    ]


def _endpoint(completions: Callable[..., ASGIApp], task: Task) -> ASGIApp:
    from lexora.providers.task_door import TaskDoor

    return completions(endpoint=task.endpoint, door=TaskDoor(task))


def _doc(task: Task) -> Doc:
    from lexora.providers.task_door import FIELDS

    return Doc(_SUMMARIES[task], FIELDS[task], completes=True)


def _form_endpoint(completions: Callable[..., ASGIApp]) -> ASGIApp:
    from lexora.providers.form_door import TranscriptionDoor

    return completions(endpoint=TRANSCRIPTIONS.endpoint, door=TranscriptionDoor(), accept=require_form)


def _form_doc() -> Doc:
    from lexora.providers.form_door import TranscriptionFields

    summary = "The text of a sound, plain or (stream: true) as server-sent events."
    return Doc(summary, TranscriptionFields, completes=True, body="multipart/form-data")


def _query_endpoint(completions: Callable[..., ASGIApp]) -> ASGIApp:
    from lexora.providers.query_door import QueryDoor

    return completions(endpoint="llm.query", door=QueryDoor())


def _query_doc() -> Doc:
    from lexora.providers.query_door import LLMQuery, QueryError

    return Doc("One prompt in, one text out.", LLMQuery, error=QueryError)


def _names_endpoint(gateway: Gateway) -> ASGIApp:
    async def names(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - it has no body
        await send_json(scope, send, 200, gateway.routes().names)

    return names
