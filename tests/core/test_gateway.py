"""What a gateway looks at, and when: the setup that is in place, and the refresh that may replace it."""

import asyncio
from typing import Any

import pytest

from lexora.core.answers import Catalogue, PreparedPrompt
from lexora.core.chat import parse_chat_request
from lexora.core.errors import ModelNotFound, UpstreamUnreachable
from lexora.core.gateway import Gateway, Setup
from lexora.core.keys import ANYBODY
from lexora.core.model_map import Deployment, parse_model_map
from lexora.core.record import Record
from lexora.core.routing import Routes
from lexora.core.usage import Usage
from lexora.providers.dialect import Completion
from lexora.providers.table import PROVIDERS
from tests.support.traffic import free_traffic


class Answers:
    """A prepared answer to everything."""

    async def get(self, prompt: str, variant: int) -> str | None:
        return "prepared"


class Nobody:
    """An upstream that cannot be reached; `asked` are the models it was to be asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def complete(self, deployment: Deployment, request: Any, record: Record, so_far: Any = None) -> Any:
        self.asked.append(deployment.model)
        raise UpstreamUnreachable("nobody is there")

    stream = count_tokens = complete


def routes(*models: str) -> Routes:
    data = {"models": {name: {"deployments": [{"provider": "vllm", "model": f"up-{name}"}]} for name in models}}
    return Routes(parse_model_map(data, PROVIDERS).models)


class Refreshed:
    """A gateway that knows model `a`, until a refresh finds `found` (if anything); `looks` counts them."""

    def __init__(self) -> None:
        self.found: Routes | None = None
        self.looks = 0
        self.upstream = Nobody()
        setup = Setup(routes("a"), Catalogue([PreparedPrompt(id="q", prompt="known")]), Answers())
        self.gateway = Gateway(setup, self.upstream, free_traffic(), self._refresh)

    def _refresh(self) -> None:
        self.looks += 1
        if self.found is not None:
            self.gateway.setup = self.gateway.setup._replace(routes=self.found)

    def ask(self, how: str, model: str) -> None:
        request = parse_chat_request(
            b'{"model": "%b", "messages": [{"role": "user", "content": "x"}]}' % model.encode()
        )
        call = getattr(self.gateway, how)
        record = Record("id", 1.0, "chat.completions")

        async def ask() -> None:
            await call(request, ANYBODY, record, lambda _: None, asyncio.get_running_loop())

        asyncio.run(ask())


@pytest.fixture
def refreshed() -> Refreshed:
    return Refreshed()


def test_without_a_refresh_the_routes_are_those_of_the_setup() -> None:
    setup = Setup(routes("a"), Catalogue([]), Answers())
    gateway = Gateway(setup, Nobody(), free_traffic())
    assert gateway.routes() is setup.routes
    gateway.setup = setup._replace(routes=routes("b"))
    assert gateway.routes().names == ["b"]


def test_whoever_asks_for_the_routes_gets_those_that_a_refresh_has_found(refreshed: Refreshed) -> None:
    assert refreshed.gateway.routes().names == ["a"]
    refreshed.found = routes("b")
    assert refreshed.gateway.routes().names == ["b"]
    assert refreshed.looks == 2


@pytest.mark.parametrize("how", ["complete", "stream"])
def test_a_request_goes_by_what_a_refresh_has_found(refreshed: Refreshed, how: str) -> None:
    refreshed.found = routes("b")
    with pytest.raises(UpstreamUnreachable):
        refreshed.ask(how, "b")
    with pytest.raises(ModelNotFound):
        refreshed.ask(how, "a")
    assert (refreshed.upstream.asked, refreshed.looks) == (["up-b"], 2)


def test_a_prepared_answer_needs_no_refresh(refreshed: Refreshed) -> None:
    """It may be slow, and a prepared answer is there at once."""
    request = parse_chat_request(b'{"messages": [{"role": "user", "content": "known"}]}')
    answer = asyncio.run(
        refreshed.gateway.prepared(request.lone_prompt() or "", request, Record("id", 1.0, "chat.completions"))
    )
    assert answer is not None
    assert (answer.text, refreshed.looks) == ("prepared", 0)


@pytest.mark.parametrize("up", [None, True, False])
def test_a_server_that_is_known_to_be_down_is_not_asked_to_count(refreshed: Refreshed, up: bool | None) -> None:
    """Whoever asks need not wait to hear it: a count that cannot be had is estimated."""
    gateway = refreshed.gateway
    (deployment,) = gateway.setup.routes.models["a"].deployments
    gateway.traffic.lanes.of(deployment).up = up
    request = parse_chat_request(b'{"model": "a", "messages": [{"role": "user", "content": "known"}]}')
    tokens, counted = asyncio.run(gateway.count_tokens(request, ANYBODY, Record("id", 1.0, "messages.count_tokens")))
    assert (tokens > 0, counted) == (True, False)
    assert refreshed.upstream.asked == ([] if up is False else ["up-a"])


def test_an_answer_costs_what_the_deployment_takes_that_was_asked_whoever_shares_its_lane() -> None:
    """The same server under two names, at two prices; both are asked at a time."""
    free = {"provider": "vllm", "model": "up"}
    data = {"free": [free], "dear": [{**free, "price": {"input": 1, "output": 2}}]}
    found = Routes(
        parse_model_map({"models": {name: {"deployments": each} for name, each in data.items()}}, PROVIDERS).models
    )
    traffic = free_traffic()

    class Upstream(Nobody):
        async def complete(self, deployment: Deployment, request: Any, record: Record, so_far: Any = None) -> Any:
            (other,) = found.find("dear" if deployment.price is None else "free") or []
            traffic.lanes.of(other)
            return Completion(b"{}", "id", "up", Usage(1_000_000, 1_000_000))

    gateway = Gateway(Setup(found, Catalogue.empty(), Answers()), Upstream(), traffic)

    async def cost(model: str) -> float | None:
        request = parse_chat_request(
            b'{"model": "%b", "messages": [{"role": "user", "content": "x"}]}' % model.encode()
        )
        record = Record("id", 1.0, "chat.completions")
        await gateway.complete(request, ANYBODY, record, lambda _: None, asyncio.get_running_loop())
        return record.cost_usd

    assert (asyncio.run(cost("dear")), asyncio.run(cost("free"))) == (3.0, 0.0)
