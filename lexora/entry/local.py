"""The gateway on one machine: settings, stores, upstreams and server put together."""

import asyncio
import contextlib
import errno
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import uvloop

from lexora.adapters.http_client import HttpClient
from lexora.adapters.json_log import JsonFormatter, JsonLog
from lexora.adapters.ledger import BatchedLedger
from lexora.adapters.sqlite import SqliteAnswers, SqliteRecords
from lexora.adapters.upstream import HttpUpstream
from lexora.api.app import create_app
from lexora.core.gateway import Gateway, Setup
from lexora.core.routing import Routes
from lexora.entry.config import Logging, Settings, load_settings
from lexora.entry.errors import ConfigError
from lexora.entry.model_server import ModelServer, start_model_server
from lexora.entry.prepared import SHIPPED, load_prepared
from lexora.entry.screen import start_screen
from lexora.entry.server import create_server
from lexora.entry.upstreams import credential_of, find_upstreams

KEEP_ALIVE_SECONDS = 75  # longer than any client pool keeps an idle connection, so that it is not we who race
SHUTDOWN_SECONDS = 30
LOOK_AGAIN_SECONDS = 5.0
BACKLOG = 2048
# How long the ledger's thread may keep the event loop waiting when both want the interpreter.
SWITCH_SECONDS = 0.0005
PID_FILE = "lexora.pid"
LOOPBACK = ("127.0.0.1", "::1")
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
    listener = _listen(host, port)
    _allow_many_connections()
    model_server = start_model_server(options.model, _progress) if options.model else None
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_Local(options, settings, listener, model_server).run())
    finally:
        listener.close()
        if model_server is not None:
            model_server.stop()


def _allow_many_connections() -> None:
    """Lifts the limit of open files to what the system allows: a stream needs two, and 1,024 is the usual default."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def reload(options: Options) -> None:
    """Tells the gateway that keeps its data where `options` say to read its files again. Raises ConfigError."""
    file = _data_folder(options, load_settings(options.config)) / PID_FILE
    try:
        with file.open("r+") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # by the gateway that wrote it, as long as it runs
                os.kill(int(held.read()), signal.SIGHUP)
                return
    except OSError:
        pass
    raise ConfigError(
        f"no gateway is running with its data in {file.parent}; name its folder with --data (DATA=dir), "
        "or its config with --config (CONFIG=file.yaml)"
    )


def _data_folder(options: Options, settings: Settings) -> Path:
    return options.data or settings.data or Path("data")


class _Local:
    """One running gateway and what it is made of."""

    def __init__(
        self, options: Options, settings: Settings, listener: socket.socket, model_server: ModelServer | None
    ) -> None:
        self._options = options
        self._settings = settings
        self._listener = listener
        self._model_server = model_server
        self._client = HttpClient()
        self._changing = asyncio.Lock()
        self._complete = True
        self._folder = _data_folder(options, settings)
        self._database = self._folder / "lexora.db"
        try:
            self._answers = SqliteAnswers(self._database)
            records = SqliteRecords(self._database)
        except OSError as error:
            raise ConfigError(f"the data cannot be kept: {error}; choose another folder with DATA=dir") from None
        self._log = JsonLog(partial(os.write, sys.stdout.fileno()))
        self._ledger = BatchedLedger([records, self._log])

    async def run(self) -> None:
        settings = self._settings
        self._configure_log(settings.logging)
        try:
            setup = await self._setup(settings)
        except OSError as error:
            raise ConfigError(f"{error}; choose another folder with DATA=dir") from None
        self._gateway = Gateway(setup, HttpUpstream(self._client, credential_of))
        app = create_app(
            self._gateway,
            self._ledger,
            allow_origins=settings.cors.allow_origins,
            max_body_bytes=int(settings.server.max_body_mb * 1024 * 1024),
            hosts=_hosts(self._listener.getsockname()[0], settings.server.allowed_hosts),
        )
        server = create_server(app, keep_alive_seconds=KEEP_ALIVE_SECONDS, shutdown_seconds=SHUTDOWN_SECONDS)
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn handles both while it serves, and raises them again when it is done: by then we end by ourselves.
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        def start(work: Coroutine[None, None, None]) -> None:
            task = loop.create_task(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)  # an error in it is logged by asyncio

        loop.add_signal_handler(signal.SIGHUP, lambda: start(self._reload()))
        start(self._look_again())
        _take_connections(self._listener)
        print(start_screen(self._listener, setup, self._database, settings), file=sys.stderr, flush=True)
        # What exists by now stays, and a request makes next to no cycles: to look for them every 700 objects is waste.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            with _pid_file(self._folder / PID_FILE):
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

    async def _setup(self, settings: Settings) -> Setup:
        catalogue, answers = load_prepared(settings.answers or SHIPPED)
        routes = await self._routes(settings)
        self._answers.replace(answers)
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
        self._log.message_text = settings.message_text

    async def _reload(self) -> None:
        """On SIGHUP: reads config, model map and prepared answers again; if anything is wrong, all stays as it is."""
        async with self._changing:
            try:
                settings = load_settings(self._options.config)
                setup = await self._setup(settings)
            except (ConfigError, OSError) as error:
                log.error("reload refused, the old configuration stays: %s", error)  # noqa: TRY400 - a line is enough
                return
            self._settings = settings
            self._gateway.setup = setup
        self._configure_log(settings.logging)
        log.info("reloaded: %d models, %d prompts", len(setup.routes.names), len(setup.catalogue.prompts))

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
                self._gateway.setup = self._gateway.setup._replace(routes=routes)
                if self._complete:
                    log.info("found upstreams: %s", ", ".join(routes.names))


def _hosts(address: str, allowed: list[str]) -> set[bytes] | None:
    """The names that the gateway goes by: those of the config, and on a loopback address that address's own."""
    if "*" in allowed or (address not in LOOPBACK and not allowed):
        return None
    return {name.lower().encode() for name in (*allowed, "localhost", "127.0.0.1", "[::1]")}


@contextlib.contextmanager
def _pid_file(path: Path) -> Iterator[None]:
    """Holds a locked file with our process id; of gateways that share a folder, the first has it."""
    with path.open("a+") as held:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.truncate(0)
            held.write(f"{os.getpid()}\n")
            held.flush()
        yield


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket; connections are taken later. Raises ConfigError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError) as error:
        if isinstance(error, UnicodeError):
            raise ConfigError(f"'{host}' is not a host name; choose another HOST") from None
        if error.errno == errno.EADDRINUSE:
            raise _in_use(host, port) from None
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another HOST or PORT") from None
    return listener


def _take_connections(listener: socket.socket) -> None:
    """Listens, before the start-up screen says so. Raises ConfigError: another gateway may have been quicker."""
    try:
        listener.listen(BACKLOG)
    except OSError:
        raise _in_use(*listener.getsockname()[:2]) from None


def _in_use(host: str, port: int) -> ConfigError:
    return ConfigError(
        f"port {port} on {host} is in use; stop what listens there, or choose another port: PORT={port + 1}"
    )


def _configure_logging(level: str) -> None:
    """All logging as JSON lines on stdout, uvicorn's included; stderr is for people."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))


def _progress(message: str) -> None:
    print(f"lexora: {message}", file=sys.stderr, flush=True)
