"""What admins do with models: over the routes and lanes that there are, on the servers behind them."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from lexora.adapters.model_servers import ModelServers
from lexora.api.admin_models import Wanted
from lexora.core.errors import InvalidRequest, ModelNotFound, UpstreamError, UpstreamTimeout
from lexora.core.lanes import Lane, Lanes
from lexora.core.model_map import Deployment
from lexora.core.routing import Routes
from lexora.entry.upstreams import adapter_of
from lexora.providers.operations import Action, Facts

_LOOK_SECONDS = 0.05


class ModelAdmin:
    """The port `ModelOperations` of the API.

    `routes` are those of now; `changed` is called with the base URL of a server whose list of models may be another.
    A server does one thing at a time. Before it sleeps it gets no more requests, and those that it has are answered:
    vLLM breaks them off, older ones break down.
    """

    def __init__(
        self,
        servers: ModelServers,
        lanes: Lanes,
        routes: Callable[[], Routes],
        changed: Callable[[str], Awaitable[None]],
    ) -> None:
        self._servers = servers
        self._lanes = lanes
        self._routes = routes
        self._changed = changed
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def is_at_work(self, base_url: str) -> bool:
        """Whether something is being done to a server: what the monitor sees of its sleep is old news."""
        return base_url in self._locks and self._locks[base_url].locked()

    async def all(self) -> list[dict[str, Any]]:
        """The state of each own deployment, by its model; `unknown` where its server does not say."""
        models = self._routes().models
        own = [(name, each) for name, route in models.items() for each in route.deployments if each.origin == "own"]
        facts = await asyncio.gather(*(self._look(deployment) for _, deployment in own))
        return [{"model": name, **_told(each, said)} for (name, each), said in zip(own, facts, strict=True)]

    async def act(self, model: str, action: Action, wanted: Wanted) -> list[dict[str, Any]]:
        """Does it on the server of each own deployment of a model, and says what state that is in then.

        Raises LexoraError: the first one's, once all are done.
        """
        deployments = self._deployments(model, wanted.parent)
        done = await asyncio.gather(*(self._act(each, action, wanted) for each in deployments), return_exceptions=True)
        if action in ("load", "unload"):
            for url in {each.base_url for each in deployments}:
                await self._changed(url)
        for result in done:
            if isinstance(result, BaseException):
                raise result
        return [_told(each, facts) for each, facts in zip(deployments, done, strict=True) if isinstance(facts, Facts)]

    def _deployments(self, model: str, parent: str | None) -> list[Deployment]:
        routes = self._routes()
        found = routes.find(model)
        if found is None and parent is not None:
            bases = routes.find(parent) or _unknown(parent, "parent")
            found = [adapter_of(base, model) for base in bases]
        own = [each for each in found or _unknown(model, "model") if each.origin == "own"]
        if not own:
            raise InvalidRequest(
                f"The model '{model}' has no deployment on a server of your own.", code="operation_not_supported"
            )
        return list({(each.base_url, each.model): each for each in own}.values())

    async def _look(self, deployment: Deployment) -> Facts:
        try:
            return await self._servers.look(deployment)
        except UpstreamError:
            return Facts()

    async def _act(self, deployment: Deployment, action: Action, wanted: Wanted) -> Facts:
        url = deployment.base_url
        async with self._locks[url]:
            if action != "sleep":
                facts = await self._servers.act(deployment, action, path=wanted.path)
                if action == "wake":
                    self._mark(url, asleep=facts.state == "sleeping")
                return facts
            was_asleep = any(lane.asleep for lane in self._lanes_of(url))
            self._mark(url, asleep=True)
            try:
                await self._drain(deployment)
                facts = await self._servers.act(deployment, action, level=wanted.level)
            except BaseException:
                self._mark(url, asleep=was_asleep)
                raise
            self._mark(url, asleep=facts.state == "sleeping")
            return facts

    def _lanes_of(self, base_url: str) -> list[Lane]:
        routes = self._routes().models.values()
        here = [each for route in routes for each in route.deployments if each.base_url == base_url]
        return [self._lanes.of(each) for each in here]

    def _mark(self, base_url: str, *, asleep: bool) -> None:
        for lane in self._lanes_of(base_url):
            lane.asleep = asleep

    async def _drain(self, deployment: Deployment) -> None:
        """Waits until nobody is in the queues of a server. Raises UpstreamTimeout."""
        seconds = deployment.timeouts.total
        try:
            async with asyncio.timeout(seconds):
                while True:
                    queues = [lane.queue for lane in self._lanes_of(deployment.base_url) if lane.queue is not None]
                    if not any(queue.running or queue.waiting for queue in queues):
                        return
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise UpstreamTimeout(
                f"The server of {deployment.label} had not answered its requests within {seconds:g} s; it stays awake."
            ) from None


def _told(deployment: Deployment, facts: Facts) -> dict[str, Any]:
    return {
        "deployment": deployment.label,
        "provider": deployment.provider,
        "server": deployment.base_url,
        "upstream_model": deployment.model,
        "state": facts.state,
        "parent": facts.parent,
    }


def _unknown(model: str, param: str) -> list[Deployment]:
    raise ModelNotFound(f"The model '{model}' does not exist here. GET /admin/models lists them.", param=param)
