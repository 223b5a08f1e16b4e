"""From a public model name to the deployments that may answer, in order."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from lexora.core.errors import InvalidRequest, ModelNotFound, NoModelConnected

if TYPE_CHECKING:
    from lexora.core.model_map import CacheRule, Deployment, Price, Route

HOW_TO_CONNECT = (
    "No model is connected. Start vLLM on port 8000, Ollama on 11434 or llama.cpp on 8080: it is found within "
    "seconds. Or start the gateway again with OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY set, with a model of "
    "your own (`make run MODEL=file.gguf`), or with a config that names deployments (`make run CONFIG=file.yaml`)."
)


def _unknown(model: str) -> None:  # noqa: ARG001 - whatever it is called
    return None


class Wildcard(NamedTuple):
    """Model names that a provider is known to serve, such as `gpt-*`, for names that no route lists.

    `price` gives what a model of such a name costs, None where it is not known.
    """

    pattern: str
    deployment: Deployment
    price: Callable[[str], Price | None] = _unknown


class Routes:
    """The model map, ready for look-ups. Immutable: a reload makes a new one."""

    def __init__(
        self,
        models: Mapping[str, Route],
        *,
        default_model: str | None = None,
        wildcards: tuple[Wildcard, ...] = (),
        how_to_connect: str = HOW_TO_CONNECT,
    ) -> None:
        self.models = models
        self.default_model = default_model or next(iter(models), None)
        self.wildcards = wildcards
        self._how_to_connect = how_to_connect
        self._find_wildcard = lru_cache(maxsize=256)(self._match_wildcards)
        self._routes: dict[str, list[Deployment]] = {}
        self._own_names: dict[str, str] = {}
        self.cache_rules: dict[str, CacheRule] = {}  # of the models whose answers are cached
        for name, route in models.items():
            for public_name in (name, *route.aliases):
                self._routes[public_name] = route.deployments
                self._own_names[public_name] = name
                if route.cache is not None:
                    self.cache_rules[public_name] = route.cache

    def with_those_of_others(self, before: Routes, base_url: str | None = None) -> Routes:
        """These routes, and those that there were `before` and are not here, but for the server's at `base_url`."""
        others = {
            name: route
            for name, route in before.models.items()
            if name not in self._routes and not any(each.base_url == base_url for each in route.deployments)
        }
        default = before.default_model if before.default_model in {*self._routes, *others} else self.default_model
        return Routes(
            {**self.models, **others},
            default_model=default,
            wildcards=self.wildcards,
            how_to_connect=self._how_to_connect,
        )

    @property
    def names(self) -> list[str]:
        """Every public model name and alias."""
        return list(self._routes)

    def own_name(self, model: str) -> str:
        """The name of the model that has this name or alias."""
        return self._own_names.get(model, model)

    def find(self, model: str) -> list[Deployment] | None:
        """A model's deployments as the model map lists them."""
        return self._routes.get(model) or self._find_wildcard(model)

    def _match_wildcards(self, model: str) -> list[Deployment] | None:
        for wildcard in self.wildcards:
            if fnmatchcase(model, wildcard.pattern):
                found = {"model": model, "price": wildcard.price(model)}
                return [wildcard.deployment.model_copy(update=found)]
        return None

    def order(self, model: str | None, choose: Callable[[], float] = random.random) -> list[Deployment]:
        """The deployments to try for `model` (None: the default model), best first.

        Raises InvalidRequest, ModelNotFound or NoModelConnected.
        """
        if not self._routes and not self.wildcards:
            raise NoModelConnected(self._how_to_connect)
        name = model or self.default_model
        if name is None:
            raise InvalidRequest("The field 'model' is required.", param="model", code="missing_required_field")
        deployments = self.find(name)
        if deployments is None:
            known = ", ".join(self.names[:20]) or "none is listed"
            raise ModelNotFound(f"The model '{name}' does not exist here. Known models: {known}.", param="model")
        if len(deployments) == 1:
            return deployments
        return _weighted_first(deployments, choose)


def _weighted_first(deployments: list[Deployment], choose: Callable[[], float]) -> list[Deployment]:
    """Deployments with a weight share the first place by their weights; the rest keep their order."""
    point = choose() * sum(deployment.weight or 0 for deployment in deployments)
    for deployment in deployments:
        point -= deployment.weight or 0
        if deployment.weight and point < 0:
            return [deployment, *(other for other in deployments if other is not deployment)]
    return deployments
