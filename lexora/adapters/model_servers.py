"""Own model servers as their operators use them: what is loaded there, load, unload, sleep, wake."""

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from lexora.adapters.http_client import HttpClient, Origin
from lexora.core.errors import InvalidRequest, UpstreamRefused, UpstreamTimeout
from lexora.core.model_map import Deployment
from lexora.providers.errors import refused
from lexora.providers.operations import SERVERS, Action, Facts, Way, is_done, outgoing, plan

LOOK_SECONDS = 3.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


def root_of(deployment: Deployment) -> str:
    """A server's address, without the version that its OpenAI door has."""
    return deployment.base_url.removesuffix("/v1")


class ModelServers:
    """Asks the servers of deployments. `headers` are those that a deployment's server wants.

    It remembers at which level a server was put to sleep: without its weights it is woken in another way, and so is
    one of which that is not known.
    """

    def __init__(self, client: HttpClient, headers: Callable[[Deployment], Mapping[str, str]]) -> None:
        self._client = client
        self._headers = headers
        self._has_weights: set[str] = set()  # servers that sleep, by their root

    async def look(self, deployment: Deployment) -> Facts:
        """What its server says of its model, within LOOK_SECONDS. Raises UpstreamError."""
        server = SERVERS.get(deployment.provider)
        if server is None:
            return Facts()
        bodies: list[bytes | None] = []
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                for path in server.looks:
                    status, body = await self._ask(deployment, "GET", path)
                    if status != 200 and not bodies:
                        raise self._refused(deployment, status, body)
                    bodies.append(body if status == 200 else None)
        except TimeoutError:
            raise UpstreamTimeout(f"The server of {deployment.label} says nothing for {LOOK_SECONDS:g} s.") from None
        return server.read(bodies, deployment.model)

    async def act(self, deployment: Deployment, action: Action, *, path: str | None = None, level: int = 1) -> Facts:
        """Does it, and waits until it is done. Raises InvalidRequest where the server cannot, and UpstreamError.

        `path` is where the server finds a LoRA adapter, `level` how deep vLLM sleeps. The deadline is the deployment's
        total timeout.
        """
        seconds = deployment.timeouts.total
        try:
            async with asyncio.timeout(seconds):
                return await self._act(deployment, action, path, level)
        except TimeoutError:
            raise UpstreamTimeout(
                f"The server of {deployment.label} was not done within {seconds:g} s (its `timeouts.total`); it may "
                "still be at it. GET /admin/models says what has become of it."
            ) from None

    async def _act(self, deployment: Deployment, action: Action, path: str | None, level: int) -> Facts:
        root = root_of(deployment)
        facts = await self.look(deployment)
        way = plan(deployment.provider, action, facts, path=path, has_weights=root in self._has_weights)
        if way is None:
            return facts
        for call in way.calls:
            where, body = outgoing(call, model=deployment.model, path=path, level=level)
            status, answer = await self._ask(deployment, "POST", where, body)
            if status != 200:
                raise self._cannot(deployment, way, status, answer)
        if action == "sleep" and level == 1:
            self._has_weights.add(root)
        elif action in ("sleep", "wake"):
            self._has_weights.discard(root)
        pause = _FIRST_PAUSE
        while True:
            facts = await self.look(deployment)
            if not way.answers_early or is_done(action, facts.state):
                return facts
            if action == "load" and facts.state == "unloaded":
                why = "its log says why" if facts.failed else "another model may have taken its place"
                raise UpstreamRefused(
                    f"The server of {deployment.label} could not load the model; {why}.",
                    status=502,
                    upstream_status=200,
                    code="load_failed",
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _ask(self, deployment: Deployment, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer. Raises UpstreamError."""
        url = urlsplit(root_of(deployment))
        tls = url.scheme == "https"
        head = {
            "host": url.netloc,
            "accept-encoding": "identity",
            "connection": "close",
            "content-type": "application/json",
            "content-length": str(len(body)),
            **self._headers(deployment),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        response = await self._client.send(
            Origin(url.hostname or "", url.port or (443 if tls else 80), tls),
            f"{method} {url.path}{path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body,
            connect_timeout=deployment.timeouts.connect,
        )
        try:
            return response.status, await response.read()
        finally:
            response.close()

    def _cannot(self, deployment: Deployment, way: Way, status: int, body: bytes) -> Exception:
        """What an answer means that is no 200."""
        if status == 404 and SERVERS[deployment.provider].no_such_path in body:
            return InvalidRequest(
                f"The server of {deployment.label} does not offer this. {way.needs}", code="operation_not_enabled"
            )
        return self._refused(deployment, status, body)

    def _refused(self, deployment: Deployment, status: int, body: bytes) -> UpstreamRefused:
        """The server's error, without our secrets in it."""
        error = refused(status, body)
        for value in self._headers(deployment).values():
            error.message = error.message.replace(value.removeprefix("Bearer "), "***")
        error.message = f"The server of {deployment.label} says: {error.message}"
        return error
