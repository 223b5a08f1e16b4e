"""Tokens (JWT) of an OIDC issuer, checked by the keys it publishes."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import jwt

from lexora.core.auth import CHALLENGE
from lexora.core.errors import Unauthorized

log = logging.getLogger("lexora")

KEYS_SECONDS = 600.0
# How long to wait before keys are fetched again for a token that none of them fits, or after a failure.
AGAIN_SECONDS = 10.0
# The same while there are no keys at all.
FIRST_SECONDS = 1.0
TOKEN_SECONDS = 60.0
LEEWAY_SECONDS = 30.0
_TIMEOUT_SECONDS = 5.0
_MOST_BYTES = 1024 * 1024
_MOST_TOKENS = 4096
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
# By a key's type and curve.
_ALGORITHMS: dict[tuple[Any, Any], tuple[str, ...]] = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
_KNOWN = {name for names in _ALGORITHMS.values() for name in names}


class _Key(NamedTuple):
    kid: str | None
    algorithms: tuple[str, ...]
    key: Any


class OidcTokens:
    """The tokens that `issuer` made for `audience`; its keys are found by discovery unless `jwks_url` says where.

    `now` gives seconds since the epoch, `clock` those of a clock that is never set.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        jwks_url: str | None = None,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._jwks_url = jwks_url
        self._now = now
        self._clock = clock
        self._keys: list[_Key] = []
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._failing = False
        self._verified: dict[bytes, tuple[float, Mapping[str, Any]]] = {}  # by the token's hash, with when to forget it

    async def claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a valid token. Raises Unauthorized, and OSError if the issuer's keys cannot be had."""
        digest = sha256(token.encode()).digest()
        cached = self._verified.get(digest)
        if cached is not None and 0 < cached[0] - self._now() <= TOKEN_SECONDS:  # the clock may have been set back
            return cached[1]
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise _unauthorized("The token is not valid: it is not a whole JWT.") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in _KNOWN:
            raise _unauthorized("The token is not valid: it is signed in a way that is not accepted here.")
        claims = self._verify(token, await self._key_for(algorithm, kid))
        if len(self._verified) >= _MOST_TOKENS:
            self._verified.clear()
        self._verified[digest] = (min(int(claims["exp"]), self._now() + TOKEN_SECONDS), claims)
        return claims

    def _verify(self, token: str, key: _Key) -> Mapping[str, Any]:
        try:
            return jwt.decode(
                token,
                key.key,
                algorithms=key.algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError:
            message = "The token has expired. Get a new one."
        except jwt.ImmatureSignatureError:
            message = "The token is not valid yet. Check the clock of whoever issued it."
        except jwt.InvalidAudienceError:
            message = "The token is for another audience. Ask its issuer for one that is for this gateway."
        except jwt.InvalidIssuerError:
            message = "The token comes from another issuer than the one this gateway trusts."
        except jwt.MissingRequiredClaimError as error:
            message = f"The token is not valid: it has no claim '{error.claim}'."
        except (jwt.PyJWTError, ValueError, RecursionError):
            message = "The token is not valid."
        raise _unauthorized(message)

    async def _key_for(self, algorithm: str, kid: str | None) -> _Key:
        """The one key that fits. Raises Unauthorized and OSError."""
        wait = AGAIN_SECONDS if self._keys else FIRST_SECONDS
        stale = self._clock() - self._fetched_at >= KEYS_SECONDS and self._clock() - self._tried_at >= wait
        if stale or (self._fetching and not self._keys):
            await self._refresh()
        found = self._fitting(algorithm, kid)
        if found is None and self._keys and (self._fetching or self._clock() - self._tried_at >= AGAIN_SECONDS):
            await self._refresh()
            found = self._fitting(algorithm, kid)
        if not self._keys:
            raise OSError("the issuer's keys cannot be had")
        if found is None:
            raise _unauthorized("The token is not valid: its issuer has no such key.")
        return found

    def _fitting(self, algorithm: str, kid: str | None) -> _Key | None:
        found = [key for key in self._keys if algorithm in key.algorithms and (kid is None or key.kid == kid)]
        return found[0] if len(found) == 1 else None

    async def _refresh(self) -> None:
        """Fetches the keys, or waits for who does so already. Never raises."""
        if self._fetching is None:
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            self._keys = await asyncio.wait_for(asyncio.to_thread(self._read_keys), 2 * _TIMEOUT_SECONDS)
            self._fetched_at = self._clock()
            self._failing = False
        except (OSError, ValueError, HTTPException, RecursionError) as error:
            if not self._failing:
                log.warning("The keys of %s cannot be had: %s", self._issuer, error or type(error).__name__)
            self._failing = True
        finally:
            self._fetching = None

    def _read_keys(self) -> list[_Key]:
        keys = _read(self._jwks_url or self._discover()).get("keys")
        usable = [key for key in map(_usable, keys if isinstance(keys, list) else []) if key is not None]
        if not usable:
            raise ValueError("there is none that can be used")
        return usable

    def _discover(self) -> str:
        found = _read(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != self._issuer:
            raise ValueError("its openid-configuration is another issuer's")
        url = found.get("jwks_uri")
        schemes = ("https",) if urlsplit(self._issuer).scheme == "https" else ("http", "https")
        if not isinstance(url, str) or urlsplit(url).scheme not in schemes:
            raise ValueError("its openid-configuration has no jwks_uri that can be used")
        return url


class _SameScheme(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme not in (req.type, "https"):
            raise OSError("it redirects to another scheme")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read(url: str) -> dict[str, Any]:
    """A JSON object. Raises OSError, HTTPException and ValueError."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("not an http or https address")
    try:
        with build_opener(_SameScheme).open(url, timeout=_TIMEOUT_SECONDS) as response:
            body = response.read(_MOST_BYTES + 1)
    except HTTPError as error:
        with error:  # it holds the connection
            raise OSError(f"HTTP status {error.code}") from None
    if len(body) > _MOST_BYTES:
        raise ValueError("its answer is too large")
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("its answer is no JSON object")  # noqa: TRY004  # what was sent is wrong, not what we passed
    return found


def _usable(data: Any) -> _Key | None:
    """A key for signatures, with what may be signed by it; None if there is nothing."""
    if not isinstance(data, dict) or data.get("use", "sig") != "sig":
        return None
    kty, crv, own = data.get("kty"), data.get("crv"), data.get("alg")
    if not isinstance(kty, str) or not isinstance(crv, str | None):
        return None
    algorithms = tuple(name for name in _ALGORITHMS.get((kty, crv), ()) if own in (None, name))
    if not algorithms:
        return None
    try:
        return _Key(data.get("kid"), algorithms, jwt.PyJWK(data, algorithms[0]).key)
    except (jwt.PyJWTError, ValueError):
        return None


def _unauthorized(message: str) -> Unauthorized:
    return Unauthorized(message, headers=CHALLENGE)
