"""The endpoints below /admin/models: which models own servers have loaded, and load, unload, sleep, wake."""

from functools import partial
from typing import Annotated, Any, Protocol, get_args

import msgspec
from starlette.types import ASGIApp, Receive, Scope

from lexora.api.admin import AdminEndpoint, Work
from lexora.api.http import headers_of, read_body, require_json
from lexora.api.openapi import KEY, UPSTREAM, Doc
from lexora.core.auth import Auth
from lexora.core.key_admin import parse
from lexora.providers.operations import Action


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """`path` is where vLLM finds a LoRA adapter, `parent` the model whose server takes one that is new.

    `level` is how deep vLLM sleeps: at 1 its weights wait in the machine's memory, at 2 it reads them again.
    """

    path: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    parent: str | None = None
    level: Annotated[int, msgspec.Meta(ge=1, le=2)] = 1


class ModelOperations(Protocol):
    async def all(self) -> list[dict[str, Any]]:
        """The state of each own deployment."""
        ...

    async def act(self, model: str, action: Action, wanted: Wanted) -> list[dict[str, Any]]:
        """Does it, and says the state of the model's own deployments. Raises LexoraError."""
        ...


_SUMMARIES: dict[Action, str] = {
    "load": "Load a model, or a LoRA adapter, on its own servers, and wait until it is.",
    "unload": "Unload a model, or a LoRA adapter; its memory is free then.",
    "sleep": "Put the servers of a model to sleep once their requests are answered.",
    "wake": "Wake the servers of a model.",
}


class AdminModels:
    """What is done to models. All of it needs an admin's key."""

    def __init__(self, auth: Auth, models: ModelOperations, max_body_bytes: int) -> None:
        self._auth = auth
        self._models = models
        self._max_body_bytes = max_body_bytes

    def table(self) -> list[tuple[str, str, ASGIApp, Doc]]:
        """Rows of the application's route table."""
        one = (("model", "string", "a model's name or alias"),)
        rows: list[tuple[str, str, Work, Doc]] = [
            (
                "GET",
                "/admin/models",
                self._list,
                Doc("Whether the models of own servers are loaded, or sleep.", errors=KEY),
            ),
        ]
        for action in get_args(Action):
            work = partial(self._act, action)
            doc = Doc(_SUMMARIES[action], Wanted, parameters=one, errors=UPSTREAM, body_required=False)
            rows.append(("POST", f"/admin/models/{{model:path}}/{action}", work, doc))
        return [(method, path, AdminEndpoint(self._auth, work), doc) for method, path, work, doc in rows]

    async def _list(self, scope: Scope, receive: Receive) -> tuple[int, Any]:
        return 200, {"models": await self._models.all()}

    async def _act(self, action: Action, scope: Scope, receive: Receive) -> tuple[int, Any]:
        wanted = Wanted()
        if body := await read_body(scope, receive, self._max_body_bytes):
            require_json(headers_of(scope))
            wanted = parse(body, Wanted)
        model = str(scope["path_params"]["model"])
        return 200, {"model": model, "deployments": await self._models.act(model, action, wanted)}
