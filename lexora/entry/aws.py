"""The gateway on AWS: one application behind two doors, a Lambda that buffers and one that streams.

What a prepared answer does not need (model map, upstreams, secrets) is imported and made when first asked for: cold
starts are paid by users.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import signal
import socket
import sys
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

import botocore.session
import msgspec
from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from lexora.adapters.dynamodb import DynamoAnswers, DynamoRecords
from lexora.adapters.dynamodb_cache import DynamoCache
from lexora.adapters.dynamodb_keys import DynamoKeys
from lexora.adapters.dynamodb_stats import DynamoStats
from lexora.adapters.dynamodb_versions import PublishedCatalogue
from lexora.adapters.emf import SERVICE, EmfMetrics
from lexora.adapters.json_log import JsonLog, iso, location
from lexora.adapters.ledger import DirectLedger
from lexora.api.app import Operations, create_app
from lexora.api.errors import ErrorLayer
from lexora.api.http import headers_of
from lexora.core.auth import Auth
from lexora.core.cache import Cache, CacheRules
from lexora.core.circuit import CircuitRules
from lexora.core.errors import SOON, CredentialMissing, HostNotAllowed
from lexora.core.gateway import Gateway, Setup
from lexora.core.keys import Limits, known
from lexora.core.lanes import Lanes
from lexora.core.limits import Estimates, Limiter, Rules
from lexora.core.passage import Traffic
from lexora.core.retry import RetryRules
from lexora.entry.aws_catalogue import CatalogueInForce
from lexora.entry.aws_model_map import ModelMapFile
from lexora.entry.prepared import SHIPPED, load_catalogue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangum import Mangum
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from lexora.adapters.dynamodb_limits import DynamoLimits
    from lexora.adapters.s3 import S3Object
    from lexora.adapters.secrets_manager import SecretsManager
    from lexora.core.chat import ChatRequest
    from lexora.core.model_map import Deployment
    from lexora.core.ports import Amounts, ChunkStream, Claim, Completion, KeyStore, ResponseStore, SoFar, Upstream
    from lexora.core.record import Record
    from lexora.providers.sigv4 import Identity

# API Gateway takes no more than 10 MB, and Lambda 6 MB: a larger body does not come this far.
MAX_BODY_BYTES = 10 * 1024 * 1024
SHUTDOWN_SECONDS = 2
KEEP_ALIVE_SECONDS = 900
# Within a region AWS answers in milliseconds; what takes longer is tried again, and not for longer than a user waits.
_CLIENTS = Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 3})

log = logging.getLogger("lexora")


class Variables(msgspec.Struct, frozen=True, rename="upper"):
    """The environment variables of a function; infra sets them."""

    lexora_environment: str
    lexora_stage: str
    answers_table: str
    requests_table: str
    limits_table: str
    cache_table: str
    config_bucket: str
    model_map_key: str
    secret_prefix: str
    allow_origins: str
    message_text: bool
    log_level: str
    max_seconds: float
    record_ttl_days: int
    max_plain_seconds: float = float("inf")
    edge_secret: str = ""
    responses_table: str = ""
    auth_required: bool = True
    prepared_need_key: bool = False
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_user_claim: str = "sub"
    jwt_admin_claim: str | None = None
    jwt_admin_value: str = "admin"
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    user_usd_per_day: float | None = None
    user_usd_per_month: float | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None
    own_open: bool = True
    paid_open: bool = False
    cache_ttl_seconds: float = 3600.0
    cache_per_user: bool = True
    cache_by_request: bool = True


class _Aws:
    """The AWS services of one function, each client made when first used, all of one session."""

    def __init__(self, variables: Variables) -> None:
        self._variables = variables
        self._session = botocore.session.get_session()

    def client(self, service: str, config: Config = _CLIENTS) -> Any:
        return self._session.create_client(service, config=config)

    @cached_property
    def _limits(self) -> DynamoLimits:
        from lexora.adapters.dynamodb_limits import DynamoLimits

        # Tried once: an update whose answer is lost may have been made, and would count twice.
        once = _CLIENTS.merge(Config(retries={"total_max_attempts": 1}))
        return DynamoLimits(self.client("dynamodb", once), self._variables.limits_table)

    def reserve(self, claims: Sequence[Claim]) -> tuple[Claim | None, list[Amounts]]:
        """As a LimitStore."""
        return self._limits.reserve(claims)

    def settle(self, claims: Sequence[Claim], amounts: Sequence[Amounts]) -> None:
        """As a LimitStore."""
        self._limits.settle(claims, amounts)

    @cached_property
    def model_map(self) -> S3Object:
        from lexora.adapters.s3 import S3Object

        return S3Object(self.client("s3"), self._variables.config_bucket, self._variables.model_map_key)

    @cached_property
    def secrets(self) -> SecretsManager:
        from lexora.adapters.secrets_manager import SecretsManager

        return SecretsManager(self.client("secretsmanager"), self._variables.secret_prefix)

    def credential(self, reference: str, *, fresh: bool = False) -> str:
        """The port `Credentials`: `env:NAME` is the secret of that name."""
        name = reference.removeprefix("env:")
        try:
            secret = (self.secrets.get(name, fresh=fresh) or "").strip()
        except OSError as error:
            log.error("the secret %s cannot be read: %s", name, error)  # noqa: TRY400 - not a bug
            problem = f"The key {name} cannot be read at the moment. Try again soon."
            raise CredentialMissing(problem, headers=SOON) from None
        if not (secret and secret.isascii() and secret.isprintable()):
            how = f"make secrets-set ENV={self._variables.lexora_environment} NAME={name}"
            raise CredentialMissing(f"The key {name} is not set. Set it with: {how}")
        return secret

    def identity(self) -> Identity:
        """Who signs requests to AWS: the function's role, whose keys are renewed. Raises CredentialMissing."""
        from lexora.providers.sigv4 import Identity

        try:
            found = self._session.get_credentials()
            keys = found.get_frozen_credentials() if found else None
        except BotoCoreError as error:
            log.error("the function's role has no keys: %s", error)  # noqa: TRY400 - not a bug
            keys = None
        if keys is None:
            raise CredentialMissing("The gateway's role has no keys at the moment. Try again soon.", headers=SOON)
        region = self._session.get_config_variable("region") or ""
        return Identity(keys.access_key, keys.secret_key, keys.token or "", region)


def _sent_limit(provider: str) -> int:
    from lexora.providers.table import sent_limit

    return sent_limit(provider)


class _LazyUpstream:
    """The port `Upstream`, put together at the first call."""

    def __init__(self, aws: _Aws) -> None:
        self._aws = aws

    @cached_property
    def _upstream(self) -> Upstream:
        from lexora.adapters.http_client import HttpClient
        from lexora.adapters.upstream import HttpUpstream

        return HttpUpstream(HttpClient(), self._aws.credential, identity=self._aws.identity)

    async def complete(self, deployment: Deployment, request: ChatRequest, record: Record) -> Completion:
        return await self._upstream.complete(deployment, request, record)

    async def stream(
        self, deployment: Deployment, request: ChatRequest, record: Record, so_far: SoFar | None = None
    ) -> ChunkStream:
        return await self._upstream.stream(deployment, request, record, so_far)

    async def count_tokens(self, deployment: Deployment, request: ChatRequest, record: Record) -> int | None:
        return await self._upstream.count_tokens(deployment, request, record)


def create_application() -> ASGIApp:
    """The application as the environment variables describe it. Raises msgspec.ValidationError that names one."""
    variables = msgspec.convert(dict(os.environ), Variables, strict=False)
    _configure_log(variables.log_level)
    aws = _Aws(variables)
    metrics = EmfMetrics(variables.lexora_environment)
    dynamodb = aws.client("dynamodb")
    model_map = ModelMapFile(lambda: aws.model_map, metrics, variables.lexora_environment)
    setup = Setup(model_map.none(), load_catalogue(SHIPPED), DynamoAnswers(dynamodb, variables.answers_table))
    ledger = DirectLedger(
        [
            JsonLog(_print, message_text=variables.message_text, level=log.getEffectiveLevel()),
            metrics,
            DynamoRecords(dynamodb, variables.requests_table, variables.record_ttl_days),
        ]
    )
    traffic = Traffic(
        Limiter(aws, _limit_rules(variables), time.time, log.error),
        Estimates(_sent_limit),
        Lanes(None, CircuitRules(), time.monotonic),  # a function has one request at a time: nothing waits in it
        RetryRules(),
        ledger.admit,
        asyncio.sleep,
        time.monotonic,
    )
    cache = Cache(
        DynamoCache(dynamodb, variables.cache_table),
        CacheRules(variables.cache_ttl_seconds, variables.cache_per_user, variables.cache_by_request),
        time.time,
        log.error,
    )
    catalogue = CatalogueInForce(PublishedCatalogue(dynamodb, variables.limits_table))
    gateway = Gateway(setup, _LazyUpstream(aws), traffic, model_map.refresh, catalogue.renew, cache)
    model_map.gateway = catalogue.gateway = gateway
    keys = DynamoKeys(dynamodb, variables.limits_table)
    app = create_app(
        gateway,
        _auth(variables, keys),
        ledger,
        operations=Operations(keys, DynamoStats(dynamodb, variables.requests_table), reload=model_map.reload),
        allow_origins=[origin for origin in map(str.strip, variables.allow_origins.split(",")) if origin],
        max_body_bytes=MAX_BODY_BYTES,
        max_seconds=variables.max_seconds,
        max_plain_seconds=variables.max_plain_seconds,
        stored_responses=_stored_responses(dynamodb, variables.responses_table),
    )
    if variables.edge_secret:
        app = _only_through_the_edge(app, aws, variables.edge_secret.removeprefix(variables.secret_prefix))
    return _without_stage(app, variables.lexora_stage)


def _stored_responses(dynamodb: Any, table: str) -> ResponseStore | None:
    if not table:
        return None
    from lexora.adapters.dynamodb_responses import DynamoResponses

    return DynamoResponses(dynamodb, table, time.time)


def _auth(variables: Variables, keys: KeyStore) -> Auth:
    tokens = None
    if variables.jwt_issuer:
        from lexora.adapters.oidc import OidcTokens

        tokens = OidcTokens(variables.jwt_issuer, variables.jwt_audience)
    return Auth(
        keys,
        tokens,
        required=variables.auth_required,
        prepared=variables.prepared_need_key,
        user_claim=variables.jwt_user_claim,
        admin_claim=variables.jwt_admin_claim,
        admin_value=variables.jwt_admin_value,
        now=time.time,
        say=log.error,
    )


def _limit_rules(variables: Variables) -> Rules:
    user = Limits(
        variables.requests_per_minute,
        variables.tokens_per_minute,
        variables.user_usd_per_day,
        variables.user_usd_per_month,
    )
    everyone = Limits(usd_per_day=variables.usd_per_day, usd_per_month=variables.usd_per_month)
    return Rules({}, known(user), known(everyone), variables.own_open, variables.paid_open)


def create_handler() -> Mangum:
    """The handler of the buffered door. Its event loop, and with it connections to upstreams, outlives a request."""
    from mangum import Mangum

    asyncio.set_event_loop(asyncio.new_event_loop())
    return Mangum(create_application(), lifespan="off")  # type: ignore[arg-type]  # any awaitable does


def serve() -> None:
    """The streaming door: serves the Lambda Web Adapter until SIGTERM."""
    from lexora.entry.server import create_server

    app = _recorded_before_its_end(create_application())
    server = create_server(app, keep_alive_seconds=KEEP_ALIVE_SECONDS, shutdown_seconds=SHUTDOWN_SECONDS)
    # uvicorn handles it while it serves and raises it again when it is done: by then we end by ourselves, records
    # of what was cut off included.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.create_server(("127.0.0.1", int(os.environ["AWS_LWA_PORT"]))) as listener:
        asyncio.run(server.serve([listener]))


def _without_stage(app: ASGIApp, stage: str) -> ASGIApp:
    """API Gateway puts the stage's name before the path, but not behind a custom domain."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        first, _, rest = scope["path"].removeprefix("/").partition("/")
        if stage and first == stage:
            scope["path"] = f"/{rest}"
        await app(scope, receive, send)

    return wrapped


def _only_through_the_edge(app: ASGIApp, aws: _Aws, name: str) -> ASGIApp:
    """Lets in what CloudFront sends: it adds a header that nobody else knows."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        given = headers_of(scope).get(b"x-lexora-edge", b"")
        if not hmac.compare_digest(given, aws.credential(name).encode()):
            raise HostNotAllowed("This address takes requests only through the CDN. Use its address.")
        await app(scope, receive, send)

    return ErrorLayer(guarded)


def _recorded_before_its_end(app: ASGIApp) -> ASGIApp:
    """Holds back the last message of a response until its record is written: after it, Lambda may freeze the process.

    The whole message, for a body of announced length ends with its last byte.
    """

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        last: Message | None = None

        async def send_all_but_the_last(message: Message) -> None:
            nonlocal last
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                last = message
            else:
                await send(message)

        scope.pop("extensions", None)
        await app(scope, receive, send_all_but_the_last)
        if last is not None:
            await send(last)

    return wrapped


class _Formatter(LambdaPowertoolsFormatter):
    """The fields that the log has on one machine: where an exception was raised, without the rest of a stack trace."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's
        return iso(record.created)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name is logging's
        return location(ei[2])

    def serialize(self, log: Any) -> str:
        if "exception_name" in log:
            log["location"], log["exception"] = log["exception"], log.pop("exception_name")
        return super().serialize(log)


def _configure_log(level: str) -> None:
    """What is not about one request, by Powertools, whose logger of the service "lexora" is the one that we log to."""
    Logger(
        service=SERVICE,
        level=level,
        logger_formatter=_Formatter(
            log_record_order=["timestamp", "level", "service", "message"], serialize_stacktrace=False
        ),
        location=None,
    )


def _print(lines: bytes) -> int:
    # Not os.write: the runtime listens to Python's stdout.
    sys.stdout.write(lines.decode())
    sys.stdout.flush()
    return len(lines)


if __name__ == "__main__":
    serve()
