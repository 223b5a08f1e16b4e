"""The gateway on one machine: settings, stores, upstreams and server put together."""

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop

from lexora import __version__
from lexora.adapters.http_client import HttpClient
from lexora.adapters.journal import Journal, recover
from lexora.adapters.json_log import JsonFormatter, JsonLog
from lexora.adapters.ledger import BatchedLedger
from lexora.adapters.memory import MemoryLimits
from lexora.adapters.model_servers import ModelServers
from lexora.adapters.prometheus import CONTENT_TYPE, PrometheusMetrics
from lexora.adapters.sqlite import SqliteAnswers, SqliteRecords
from lexora.adapters.sqlite_cache import SqliteCache
from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.adapters.sqlite_responses import SqliteResponses
from lexora.adapters.sqlite_stats import SqliteStats
from lexora.adapters.upstream import HttpUpstream
from lexora.api.app import Operations, create_app
from lexora.api.health import HealthEndpoint
from lexora.api.metrics import MetricsEndpoint, create_ops_app
from lexora.core.cache import Cache
from lexora.core.errors import InvalidRequest
from lexora.core.gateway import Gateway, Setup
from lexora.core.lanes import Lanes
from lexora.core.limits import Estimates, Limiter, day_window, minute_window, month_window
from lexora.core.model_map import Deployment
from lexora.core.passage import Traffic
from lexora.core.ports import RecordSink
from lexora.core.record import Record
from lexora.core.routing import Routes
from lexora.core.versions import Version
from lexora.entry.auth import change_auth, create_auth
from lexora.entry.config import Logging, Settings, load_settings
from lexora.entry.errors import ConfigError
from lexora.entry.folders import data_folder
from lexora.entry.listen import LOOPBACK, bind, take_connections
from lexora.entry.live import Live
from lexora.entry.model_admin import ModelAdmin
from lexora.entry.model_server import ModelServer, start_model_server
from lexora.entry.monitor import Monitor, ServerFacts, headers_of
from lexora.entry.policies import cache_rules, circuit_rules, limit_rules, queue_rules, retry_rules
from lexora.entry.prepared import PAGE, SHIPPED, load_prepared
from lexora.entry.screen import start_screen
from lexora.entry.server import create_server
from lexora.entry.upstreams import aws_identity, credential_of, find_upstreams
from lexora.providers.table import sent_limit

KEEP_ALIVE_SECONDS = 75  # longer than any client pool keeps an idle connection, so that it is not we who race
LOOK_AGAIN_SECONDS = 5.0
# How long the ledger's thread may keep the event loop waiting when both want the interpreter.
SWITCH_SECONDS = 0.0005
PID_FILE = "lexora.pid"
JOURNAL = "journal.jsonl"
RESPONSES = "responses.db"
CACHE = "cache.db"
GC_THRESHOLDS = (20_000, 20, 20)

log = logging.getLogger("lexora")


class Options(NamedTuple):
    """What the command line says; None is left to the config file."""

    host: str | None = None
    port: int | None = None
    config: Path | None = None
    model: Path | None = None
    data: Path | None = None


def serve(options: Options) -> None:
    """Runs the gateway until SIGINT or SIGTERM. Raises ConfigError."""
    settings = load_settings(options.config)
    host, port = options.host or settings.server.host, options.port or settings.server.port
    metrics = settings.metrics if settings.metrics and settings.metrics.enabled else None
    os.umask(0o077)  # what users have said is nobody else's on this machine
    with contextlib.ExitStack() as held:
        listener = held.enter_context(bind(host, port))
        ops_listener = held.enter_context(bind(metrics.host, metrics.port)) if metrics else None
        held.enter_context(_hold(data_folder(options.data, settings)))
        _allow_many_connections()
        model_server = start_model_server(options.model, _progress) if options.model else None
        if model_server is not None:
            held.callback(model_server.stop)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_Local(options, settings, listener, ops_listener, model_server).run())


def _allow_many_connections() -> None:
    """Lifts the limit of open files to what the system allows: a stream needs two, and 1,024 is the usual default."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def reload(options: Options) -> None:
    """Tells the gateway that keeps its data where `options` say to read its files again. Raises ConfigError."""
    folder = data_folder(options.data, load_settings(options.config))
    if not tell_to_reload(folder):
        raise ConfigError(
            f"no gateway is running with its data in {folder}; name its folder with --data (DATA=dir), "
            "or its config with --config (CONFIG=file.yaml)"
        )


def tell_to_reload(folder: Path) -> bool:
    """Tells the gateway that keeps its data in `folder`. False if there is none."""
    try:
        with (folder / PID_FILE).open("r+") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # by the gateway that wrote it, as long as it runs
                os.kill(int(held.read()), signal.SIGHUP)
                return True
    except OSError:
        pass
    return False


class _Local:
    """One running gateway and what it is made of."""

    def __init__(
        self,
        options: Options,
        settings: Settings,
        listener: socket.socket,
        ops_listener: socket.socket | None,
        model_server: ModelServer | None,
    ) -> None:
        self._options = options
        self._settings = settings
        self._listener = listener
        self._ops_listener = ops_listener
        self._model_server = model_server
        self._client = HttpClient()
        self._changing = asyncio.Lock()
        self._complete = True
        folder = data_folder(options.data, settings)
        self._database = folder / "lexora.db"
        self._lanes = Lanes(queue_rules(settings), circuit_rules(settings), time.monotonic)
        self._monitor = Monitor(self._client, lambda deployment: self._lanes.of(deployment).circuit.successes)
        self._live = Live(self._lanes, self._monitor)
        self._models = ModelAdmin(
            ModelServers(self._client, headers_of),
            self._lanes,
            lambda: self._gateway.setup.routes,
            self._look_at_models,
        )
        try:
            self._answers = SqliteAnswers(self._database)
            self._keys = SqliteKeys(self._database)
            self._records = records = SqliteRecords(self._database)
            recovered = recover(folder / JOURNAL, records)
            self._limits = MemoryLimits(records.spent)
            for window in (minute_window, day_window, month_window):  # now, as nobody waits for it yet
                name, _, ends_at = window(time.time())
                self._limits.open(name, ends_at)
            journal = Journal(folder / JOURNAL)
            self._responses = SqliteResponses(folder / RESPONSES, time.time) if settings.responses.store else None
        except OSError as error:
            raise ConfigError(f"the data cannot be kept: {error}; choose another folder with DATA=dir") from None
        most_bytes = int(settings.cache.max_mb * 1024 * 1024)
        self._kept = SqliteCache(folder / CACHE, time.time, most_bytes, settings.cache.max_entries)
        self._cache = Cache(self._kept, cache_rules(settings), time.time, log.error)
        self._log = JsonLog(partial(os.write, sys.stdout.fileno()))
        self._metrics = PrometheusMetrics(__version__, time.time(), self._live.gauges)
        sinks: list[RecordSink] = [records, self._log, self._metrics]
        trace: Callable[[Record], str] | None = None
        if settings.tracing is not None:
            from lexora.adapters.tracing import Tracer  # OpenTelemetry takes its time
            from lexora.core.trace import outgoing_traceparent

            sinks.append(Tracer(str(settings.tracing.endpoint), __version__, self._live.address_of))

            def trace(record: Record) -> str:
                return outgoing_traceparent(record.request_id, record.trace_parent)

        self._ledger = BatchedLedger(sinks, journal)
        self._upstream = HttpUpstream(self._client, credential_of, trace, aws_identity)
        # A name of its own on loopback is that of a proxy or tunnel, through which others come.
        self._exposed = self._address not in LOOPBACK or bool(settings.server.allowed_hosts)
        self._auth = create_auth(settings.auth, self._keys, exposed=self._exposed)
        self._recovered = recovered

    @property
    def _address(self) -> str:
        return str(self._listener.getsockname()[0])

    async def run(self) -> None:
        settings = self._settings
        self._configure_log(settings.logging)
        if self._recovered:
            log.warning("the gateway was killed; records of %d requests are written from its journal", self._recovered)
        try:
            setup = await self._setup(settings)
        except OSError as error:
            raise ConfigError(f"{error}; choose another folder with DATA=dir") from None
        traffic = Traffic(
            Limiter(self._limits, limit_rules(settings), time.time, log.error),
            Estimates(sent_limit),
            self._lanes,
            retry_rules(settings),
            self._ledger.admit,
            asyncio.sleep,
            time.monotonic,
        )
        self._gateway = Gateway(setup, self._upstream, traffic, cache=self._cache)
        operations = Operations(
            self._keys,
            SqliteStats(self._database),
            self._live.stats,
            self._metrics.text,
            self._reload_for_admin,
            lambda: self._live.health(self._deployments()),
            self._models,
        )
        app = create_app(
            self._gateway,
            self._auth,
            self._ledger,
            allow_origins=settings.cors.allow_origins,
            max_body_bytes=int(settings.server.max_body_mb * 1024 * 1024),
            hosts=_hosts(self._address, settings.server.allowed_hosts),
            operations=operations,
            stored_responses=self._responses,
            page=PAGE if PAGE.is_dir() else None,  # pip alone installs packages only
        )
        grace = int(settings.server.grace_seconds)
        server = create_server(app, keep_alive_seconds=KEEP_ALIVE_SECONDS, shutdown_seconds=grace)
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn handles both while it serves, and raises them again when it is done: by then we end by ourselves.
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        def start(work: Coroutine[None, None, None]) -> None:
            task = loop.create_task(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)  # an error in it is logged by asyncio

        loop.add_signal_handler(signal.SIGHUP, lambda: start(self._reload_on_signal()))
        start(self._look_again())
        start(self._monitor.watch(self._deployments, self._note))
        take_connections(self._listener)
        if self._ops_listener is not None:
            take_connections(self._ops_listener)
            start(self._serve_operations(self._ops_listener, operations))
        print(
            start_screen(self._listener, setup, self._database, key_needed=self._auth.required, exposed=self._exposed),
            file=sys.stderr,
            flush=True,
        )
        # What exists by now stays, and a request makes next to no cycles: to look for them every 700 objects is waste.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            await server.serve([self._listener])
        finally:
            # What still runs when its time is up is cut off, and its record is to be written as well.
            running = [*tasks, *server.server_state.tasks]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self._client.close()
            # Blocks, as nothing else is left to do.
            self._ledger.close()
            self._answers.close()
            self._keys.close()
            self._kept.close()
            if self._responses is not None:
                self._responses.close()

    async def _setup(self, settings: Settings) -> Setup:
        catalogue, answers = load_prepared(settings.answers or SHIPPED)
        routes = await self._routes(settings)
        self._answers.replace(answers, Version.of(catalogue, answers).catalogue())
        return Setup(routes, catalogue, self._answers)

    async def _routes(self, settings: Settings) -> Routes:
        routes, self._complete = await find_upstreams(
            settings,
            self._client,
            configured=self._options.config is not None,
            model_server=self._model_server.deployment if self._model_server else None,
            own_port=self._listener.getsockname()[1],
        )
        return routes

    def _configure_log(self, settings: Logging) -> None:
        _configure_logging(settings.level)
        self._log.level = logging.getLevelNamesMapping()[settings.level]
        self._log.message_text = self._records.message_text = settings.message_text

    async def _reload(self) -> str:
        """Reads config, model map and prepared answers again, and says what there is; if anything is wrong, all stays
        as it is. Raises ConfigError and OSError.
        """
        async with self._changing:
            settings = load_settings(self._options.config)
            setup = await self._setup(settings)
            before, self._settings = self._settings, settings
            gateway = self._gateway
            gateway.setup = setup
            gateway.traffic = msgspec.structs.replace(gateway.traffic, retry=retry_rules(settings))
            gateway.traffic.limiter.rules = limit_rules(settings)
            self._cache.rules = cache_rules(settings)
            self._lanes.change(queue_rules(settings), circuit_rules(settings))
            self._lanes.keep(self._deployments())
            change_auth(self._auth, settings.auth, before.auth, exposed=self._exposed)
        self._configure_log(settings.logging)
        said = f"reloaded: {len(setup.routes.names)} models, {len(setup.catalogue.prompts)} prompts"
        log.info(said)
        return said

    async def _reload_on_signal(self) -> None:
        try:
            await self._reload()
        except (ConfigError, OSError) as error:
            log.error("reload refused, the old configuration stays: %s", error)  # noqa: TRY400 - a line is enough

    async def _reload_for_admin(self) -> str:
        try:
            return await self._reload()
        except (ConfigError, OSError) as error:
            raise InvalidRequest(f"Refused, and the old configuration stays: {error}", code="reload_refused") from None

    def _deployments(self) -> Iterator[Deployment]:
        for route in self._gateway.setup.routes.models.values():
            yield from route.deployments

    def _note(self, deployment: Deployment, facts: ServerFacts) -> None:
        """What the monitor has seen of a deployment's server."""
        lane = self._lanes.of(deployment)
        if facts.reachable and lane.up is False:
            lane.circuit.probe_now()
        lane.up = facts.reachable
        if not self._models.is_at_work(deployment.base_url):
            lane.asleep = facts.asleep
        if lane.queue is not None and lane.queue.concurrency != facts.concurrency:
            lane.queue.concurrency = facts.concurrency

    async def _serve_operations(self, listener: socket.socket, operations: Operations) -> None:
        """/metrics and /health on a port of their own."""
        health = HealthEndpoint(self._gateway, time.monotonic(), operations.health)
        app = create_ops_app(MetricsEndpoint(self._metrics.text, CONTENT_TYPE), health)
        server = create_server(app, keep_alive_seconds=KEEP_ALIVE_SECONDS, shutdown_seconds=1)
        await server._serve([listener])  # noqa: SLF001 - `serve` would take the signals from the other server

    async def _look_again(self) -> None:
        """Upstreams that were not up yet when we looked: looks until they are."""
        said = ""
        while True:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            async with self._changing:
                if self._complete:
                    continue
                try:
                    routes = await self._routes(self._settings)
                except ConfigError as error:
                    if said != str(error):
                        said = str(error)
                        log.error("the upstreams that were found cannot be used: %s", said)  # noqa: TRY400 - no bug
                    continue
                routes = routes.with_those_of_others(self._gateway.setup.routes)  # of servers that are away by now
                self._gateway.setup = self._gateway.setup._replace(routes=routes)
                self._lanes.keep(self._deployments())
                if self._complete:
                    log.info("found upstreams: %s", ", ".join(routes.names))

    async def _look_at_models(self, base_url: str) -> None:
        """The models of a server may be others than before. Those of other servers stay, should one be away now."""
        async with self._changing:
            before = self._gateway.setup.routes
            try:
                found = await self._routes(self._settings)
            except ConfigError as error:
                log.error("the upstreams that were found cannot be used: %s", error)  # noqa: TRY400 - no bug
                return
            self._gateway.setup = self._gateway.setup._replace(routes=found.with_those_of_others(before, base_url))
            self._lanes.keep(self._deployments())


def _hosts(address: str, allowed: list[str]) -> set[bytes] | None:
    """The names that the gateway goes by: those of the config, and on a loopback address that address's own."""
    if "*" in allowed or (address not in LOOPBACK and not allowed):
        return None
    return {name.lower().encode() for name in (*allowed, "localhost", "127.0.0.1", "[::1]")}


@contextlib.contextmanager
def _hold(folder: Path) -> Iterator[None]:
    """Holds a locked file with our process id: the books of a folder are kept by one gateway. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = (folder / PID_FILE).open("a+")
    except OSError as error:
        raise ConfigError(f"the data cannot be kept: {error}; choose another folder with DATA=dir") from None
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"a gateway is running with its data in {folder}; stop it, or choose another folder with DATA=dir"
            ) from None
        held.truncate(0)
        held.write(f"{os.getpid()}\n")
        held.flush()
        yield


def _configure_logging(level: str) -> None:
    """All logging as JSON lines on stdout, uvicorn's included; stderr is for people."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))


def _progress(message: str) -> None:
    print(f"lexora: {message}", file=sys.stderr, flush=True)
