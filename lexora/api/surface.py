"""OpenAI's other endpoints: the same way through the gateway as chat's, by other doors."""

from collections.abc import Callable
from functools import partial

from starlette.types import ASGIApp

from lexora.api.http import Later, require_form
from lexora.api.openapi import Doc, Row
from lexora.core.task import COMPLETIONS, EMBEDDINGS, IMAGES, RERANK, TRANSCRIPTIONS, Task

_SUMMARIES = {
    COMPLETIONS: "A text completion, plain or (stream: true) as server-sent events.",
    EMBEDDINGS: "Embeddings of a text, of several, or of tokens.",
    RERANK: "Documents in the order of how well they answer a query.",
    IMAGES: "Images from a prompt.",
}


def surface_table(completions: Callable[..., ASGIApp]) -> list[Row]:
    """The rows of the route table. `completions` makes an endpoint that answers by a door."""
    return [
        *(
            ("POST", f"/v1{task.path}", Later(partial(_endpoint, completions, task)), partial(_doc, task))
            for task in _SUMMARIES
        ),
        ("POST", f"/v1{TRANSCRIPTIONS.path}", Later(partial(_form_endpoint, completions)), _form_doc),
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
