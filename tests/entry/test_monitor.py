"""What is seen of model servers: whether they answer, and how much each can take."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from lexora.adapters.http_client import HttpClient
from lexora.core.model_map import Deployment
from lexora.entry.monitor import Monitor, ServerFacts
from lexora.providers.table import PROVIDERS
from tests.support.gateway import free_port

# As vLLM 0.32 writes them.
GAUGES = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="tiny-chat"}} {running}
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="tiny-chat"}} {waiting}
"""


class Vllm(ThreadingHTTPServer):
    """A server with vLLM's metrics; `load` is what is running and waiting in it, `delay` how slow it is to answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.load: tuple[float, float] | None = (0.0, 0.0)
        self.delay = 0.0
        self.status = 200
        self.base_url = f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Vllm

    def do_GET(self) -> None:
        time.sleep(self.server.delay)
        body = '{"object": "list", "data": []}'
        if self.path == "/metrics":
            load = self.server.load
            body = GAUGES.format(running=load[0], waiting=load[1]) if load else ""
        with contextlib.suppress(ConnectionError):  # whoever asked has not waited
            self.send_response(self.server.status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def vllm() -> Iterator[Vllm]:
    with Vllm() as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


def deployment(base_url: str, provider: str = "vllm", **more: object) -> Deployment:
    data = {"provider": provider, "base_url": base_url, "model": "m", **more}
    return Deployment.model_validate(data, context=PROVIDERS)


def rounds(
    count: int,
    *watched: Deployment,
    between: Callable[[int], None] = lambda _: None,
    answers: Callable[[Deployment], int] = lambda _: 0,
) -> list[ServerFacts]:
    """What so many looks at the deployments have found, one after the other, each given 0.2 s."""
    found: list[ServerFacts] = []

    async def run() -> None:
        client = HttpClient()
        enough = asyncio.Event()
        monitor = Monitor(client, answers, 0.01, 0.2, lambda: None)

        def note(_: Deployment, facts: ServerFacts) -> None:
            found.append(facts)
            between(len(found))
            if len(found) >= count * len(watched):
                enough.set()

        task = asyncio.create_task(monitor.watch(lambda: watched, note))
        await enough.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        client.close()

    asyncio.run(run())
    return found[: count * len(watched)]


def test_the_slots_of_a_real_llamacpp_are_its_concurrency(llamacpp: Deployment) -> None:
    (facts,) = rounds(1, llamacpp)
    assert facts.reachable
    assert facts.concurrency is not None
    assert facts.concurrency >= 1


def test_what_the_config_says_counts_more(llamacpp: Deployment) -> None:
    (facts,) = rounds(1, deployment(llamacpp.base_url, "llamacpp", concurrency=77))
    assert facts.concurrency == 77


def test_vllm_takes_what_it_runs_while_others_wait_and_one_more_when_it_runs_that(vllm: Vllm) -> None:
    loads = [(3.0, 0.0), (8.0, 5.0), (8.0, 0.0), (8.0, 0.0), (0.0, 0.0), (9.0, 0.0), (0.0, 2.0)]

    def change(number: int) -> None:
        if number < len(loads):
            vllm.load = loads[number]

    vllm.load = loads[0]
    found = rounds(len(loads), deployment(vllm.base_url), between=change)
    assert [facts.concurrency for facts in found] == [None, 8, 9, 9, 9, 10, 1]
    assert [(facts.running, facts.waiting) for facts in found[:2]] == [(3, 0), (8, 5)]


def test_a_server_without_figures_is_there_all_the_same(vllm: Vllm) -> None:
    vllm.load = None
    (facts,) = rounds(1, deployment(vllm.base_url))
    assert facts == ServerFacts(reachable=True, running=None, waiting=None, concurrency=None)


def test_what_is_gone_when_its_server_answers_is_not_told_of(vllm: Vllm) -> None:
    gone, new = deployment(vllm.base_url, name="gone"), deployment(vllm.base_url, name="new")
    asked = iter([[gone]])
    told: list[Deployment] = []

    async def run() -> None:
        client = HttpClient()
        enough = asyncio.Event()

        def note(noted: Deployment, _: ServerFacts) -> None:
            told.append(noted)
            enough.set()

        monitor = Monitor(client, lambda _: 0, 0.01, 0.2, lambda: None)
        task = asyncio.create_task(monitor.watch(lambda: next(asked, [new]), note))
        await enough.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        client.close()

    asyncio.run(run())
    assert told == [new]


def test_a_server_that_is_away_does_not_delay_the_others(vllm: Vllm) -> None:
    away = deployment(f"http://127.0.0.1:{free_port()}/v1")
    found = rounds(2, away, deployment(vllm.base_url))
    assert sorted(facts.reachable for facts in found) == [False, False, True, True]


def reachable(found: list[ServerFacts]) -> list[bool | None]:
    return [facts.reachable for facts in found]


@pytest.mark.parametrize("how", ["silent", "an error"])
def test_a_server_that_was_there_is_away_after_three_looks_in_vain(vllm: Vllm, how: str) -> None:
    def change(number: int) -> None:
        well = number in (0, 3, 7)
        vllm.delay = 0.0 if well or how != "silent" else 0.4
        vllm.status = 200 if well else 503

    found = rounds(8, deployment(vllm.base_url), between=change)
    assert reachable(found) == [True, True, True, True, True, True, False, True]


def test_a_server_that_is_slow_from_the_start_is_not_known_to_be_away(vllm: Vllm) -> None:
    vllm.delay = 0.4
    assert reachable(rounds(3, deployment(vllm.base_url))) == [None, None, False]


def test_a_server_that_takes_no_connection_is_away_at_once(vllm: Vllm) -> None:
    def change(number: int) -> None:
        if number == 1:
            vllm.shutdown()
            vllm.server_close()

    assert reachable(rounds(2, deployment(vllm.base_url), between=change)) == [True, False]


def test_a_server_whose_answers_are_good_is_there_however_slow_it_is_to_be_looked_at(vllm: Vllm) -> None:
    chats = 0

    def change(number: int) -> None:
        nonlocal chats
        chats += number < 4

    vllm.delay = 0.4
    other = deployment(vllm.base_url, name="other")
    found = rounds(7, deployment(vllm.base_url), between=change, answers=lambda _: chats)
    assert reachable(found) == [None, True, True, True, True, True, False]
    chats = 0
    both = rounds(2, other, deployment(vllm.base_url), between=change, answers=lambda it: chats * (it is other))
    assert reachable(both) == [None, None, True, True]
