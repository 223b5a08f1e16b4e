"""GET /v1/models and /v1/models/{id}."""

from starlette.types import Receive, Scope, Send

from lexora.api.http import send_json
from lexora.core.errors import ModelNotFound
from lexora.core.gateway import Gateway
from lexora.core.routing import Routes


class ModelsEndpoint:
    """Lists the public model names and aliases (https://platform.openai.com/docs/api-reference/models)."""

    def __init__(self, gateway: Gateway, started_at: float) -> None:
        self._gateway = gateway
        self._created = int(started_at)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        routes = self._gateway.routes()
        wanted = scope.get("path_params", {}).get("model")
        if wanted is None:
            models = [self._model(name, routes) for name in routes.names]
            await send_json(scope, send, 200, {"object": "list", "data": models})
        elif routes.find(wanted) is None:
            raise ModelNotFound(f"The model '{wanted}' does not exist here. GET /v1/models lists them.", param="model")
        else:
            await send_json(scope, send, 200, self._model(wanted, routes))

    def _model(self, name: str, routes: Routes) -> dict[str, object]:
        deployments = routes.find(name) or []
        owner = deployments[0].provider if deployments else "lexora"
        return {"id": name, "object": "model", "created": self._created, "owned_by": owner}
