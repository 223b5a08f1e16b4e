"""What own model servers can do with their models, one row each: which requests, and how the answers read.

vLLM: https://docs.vllm.ai/en/latest/features/sleep_mode/ and …/features/lora/; Ollama: https://docs.ollama.com/api;
llama.cpp: tools/server/README.md, "Using multiple models".
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from lexora.core.errors import InvalidRequest
from lexora.providers.dialect import NOT_JSON

_T = TypeVar("_T")

Action = Literal["load", "unload", "sleep", "wake"]
State = Literal["loaded", "loading", "unloaded", "sleeping", "unknown"]

GOALS: Mapping[Action, State] = {"load": "loaded", "unload": "unloaded", "sleep": "sleeping", "wake": "loaded"}


class Facts(NamedTuple):
    """What a server says of a model. `parent` is the base model of a LoRA adapter, by the server's name."""

    state: State = "unknown"
    parent: str | None = None
    failed: bool = False  # its last loading did


class Call(NamedTuple):
    """`POST path`, with `body` as JSON. In it `{model}`, `{path}` and, in the path, `{level}` are filled in."""

    path: str
    body: Mapping[str, Any] | None = None


class Way(NamedTuple):
    """How a server does something: `calls` in turn. `answers_early`: they are answered before it is done.

    `needs` is said where the server does not know the path.
    """

    calls: tuple[Call, ...]
    needs: str
    answers_early: bool = False


class ModelServer(NamedTuple):
    """`looks` are paths to GET, whose bodies (None of those that are not there) `read` takes, with the model's name.

    `no_such_path` is in the body of a 404 for a path that the server does not have; `cannot` says why it has no way.
    `adapters_only`: of its models it loads and unloads LoRA adapters only, from a path.
    """

    looks: tuple[str, ...]
    read: Callable[[Sequence[bytes | None], str], Facts]
    ways: Mapping[Action, Way]
    cannot: str
    no_such_path: bytes
    adapters_only: bool = False


class _Status(msgspec.Struct):
    value: str
    failed: bool = False


class _Card(msgspec.Struct):
    """A model in the lists of vLLM and llama.cpp."""

    id: str
    parent: str | None = None
    aliases: list[str] = []
    status: _Status | None = None


class _Cards(msgspec.Struct):
    data: list[_Card]


class _Sleeping(msgspec.Struct):
    is_sleeping: bool


class _Named(msgspec.Struct):
    model: str


class _Running(msgspec.Struct):
    models: list[_Named]


def _decoded(body: bytes | None, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(body, type=kind) if body is not None else None
    except NOT_JSON:
        return None


def is_sleeping(body: bytes | None) -> bool:
    """What vLLM's `/is_sleeping` says; False where it says nothing."""
    said = _decoded(body, _Sleeping)
    return said is not None and said.is_sleeping


def _vllm(bodies: Sequence[bytes | None], model: str) -> Facts:
    cards = _decoded(bodies[0], _Cards)
    if cards is None:
        return Facts()
    card = next((card for card in cards.data if card.id == model), None)
    parent = card.parent if card else None
    if is_sleeping(bodies[1]):
        return Facts("sleeping", parent)
    return Facts("loaded" if card else "unloaded", parent)


def _ollama(bodies: Sequence[bytes | None], model: str) -> Facts:
    running = _decoded(bodies[0], _Running)
    if running is None:
        return Facts()
    whole = model if ":" in model.rpartition("/")[2] else f"{model}:latest"
    return Facts("loaded" if whole in {each.model for each in running.models} else "unloaded")


_LLAMACPP: Mapping[str, State] = {"loaded": "loaded", "loading": "loading", "sleeping": "sleeping"}


def _llamacpp(bodies: Sequence[bytes | None], model: str) -> Facts:
    """Without router mode a server has one model, by whatever name it is asked, and says no status."""
    cards = _decoded(bodies[0], _Cards)
    if cards is None:
        return Facts()
    if all(card.status is None for card in cards.data):
        return Facts("loaded" if cards.data else "unknown")
    status = next((card.status for card in cards.data if model in (card.id, *card.aliases)), None)
    return Facts(_LLAMACPP.get(status.value, "unloaded"), failed=status.failed) if status else Facts("unloaded")


_DEV_MODE = "Start it with the environment variable VLLM_SERVER_DEV_MODE=1 and with --enable-sleep-mode."
_ADAPTERS = "Start it with the environment variable VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and with --enable-lora."
_OLLAMA = "It does not know Ollama's own API; is it Ollama that runs there?"
_ROUTER = "Start llama-server in router mode: without --model, with --models-dir or --models-preset."
_MODEL = {"model": "{model}"}

SERVERS: dict[str, ModelServer] = {
    "vllm": ModelServer(
        ("/v1/models", "/is_sleeping"),
        _vllm,
        {
            "load": Way((Call("/v1/load_lora_adapter", {"lora_name": "{model}", "lora_path": "{path}"}),), _ADAPTERS),
            "unload": Way((Call("/v1/unload_lora_adapter", {"lora_name": "{model}"}),), _ADAPTERS),
            "sleep": Way((Call("/sleep?level={level}"),), _DEV_MODE),
            "wake": Way((Call("/wake_up"),), _DEV_MODE),
        },
        "vLLM has one base model as long as it runs, and loads and unloads LoRA adapters only. It can sleep.",
        b'"detail":"Not Found"',
        adapters_only=True,
    ),
    "ollama": ModelServer(
        ("/api/ps",),
        _ollama,
        {
            # Without a prompt, the model is loaded and nothing is said; -1: it stays.
            "load": Way((Call("/api/generate", {**_MODEL, "keep_alive": -1, "stream": False}),), _OLLAMA),
            "unload": Way((Call("/api/generate", {**_MODEL, "keep_alive": 0, "stream": False}),), _OLLAMA, True),
        },
        "Ollama does not sleep. Unload the model instead; the next request loads it.",
        b"404 page not found",
    ),
    "llamacpp": ModelServer(
        ("/models",),
        _llamacpp,
        {
            "load": Way((Call("/models/load", _MODEL),), _ROUTER, answers_early=True),
            "unload": Way((Call("/models/unload", _MODEL),), _ROUTER, answers_early=True),
        },
        "llama.cpp sleeps and wakes by itself (--sleep-idle-seconds). In router mode, unload the model instead.",
        b"File Not Found",
    ),
}

# After a sleep of level 2 vLLM has no weights any more: it makes room for them, reads them, then makes its cache, of
# whose contents it must know nothing.
WAKE_WITHOUT_WEIGHTS = Way(
    (
        Call("/wake_up?tags=weights"),
        Call("/collective_rpc", {"method": "reload_weights"}),
        Call("/wake_up?tags=kv_cache"),
        Call("/reset_prefix_cache"),
    ),
    _DEV_MODE,
)


def plan(provider: str, action: Action, facts: Facts, *, path: str | None, has_weights: bool) -> Way | None:
    """How a provider's server does this to a model of which it says `facts`; None where there is nothing to do.

    `has_weights`: a server that sleeps is known to have them still. Raises InvalidRequest where it cannot.
    """
    server = SERVERS.get(provider)
    if server is None:
        raise InvalidRequest(f"How to {action} models of {provider} is not known.", code="operation_not_supported")
    way = server.ways.get(action)
    cannot = InvalidRequest(server.cannot, code="operation_not_supported")
    if way is None:
        raise cannot
    state = facts.state
    if state == "sleeping" and action in ("load", "unload") and "wake" in server.ways:
        raise InvalidRequest("The server sleeps. Wake it first.", code="model_asleep")
    if path is not None and not server.adapters_only:
        message = "Only vLLM takes a LoRA adapter by its path. Leave it out."
        raise InvalidRequest(message, param="path", code="operation_not_supported")
    if is_done(action, state):
        return None
    if server.adapters_only and action == "load" and path is None:
        raise InvalidRequest(f"{server.cannot} For an adapter, say where the server finds it.", param="path")
    if server.adapters_only and action == "unload" and facts.parent is None and state == "loaded":
        raise cannot
    if action == "load" and state == "loading":
        return way._replace(calls=())
    return WAKE_WITHOUT_WEIGHTS if action == "wake" and not has_weights else way


def is_done(action: Action, state: State) -> bool:
    """Whether the model is where the action leads. One that sleeps is loaded: it wakes by itself, or can be woken."""
    return state == GOALS[action] or (action == "load" and state == "sleeping")


def outgoing(call: Call, *, model: str, path: str | None, level: int) -> tuple[str, bytes]:
    """The path and the body of a call."""
    filled = {"{model}": model, "{path}": path}
    body = {name: filled.get(value, value) for name, value in (call.body or {}).items()}
    return call.path.replace("{level}", str(level)), msgspec.json.encode(body) if body else b""
