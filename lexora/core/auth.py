"""Who asks: by a key of ours, or a token of an OIDC issuer."""

import hmac
from collections.abc import Callable, Mapping
from hashlib import sha256
from math import inf
from typing import Any

from lexora.core.complaints import Complaints
from lexora.core.errors import AuthUnavailable, Unauthorized
from lexora.core.keys import ANYBODY, Caller, Key, known
from lexora.core.ports import KeyStore, TokenVerifier

PREFIX = "sk-lexora-"
# How long a key that was looked up is taken for what it was: a revoked one ends within it.
FRESH_SECONDS = 2.0
# And how long if the store does not answer.
STALE_SECONDS = 60.0
_MOST_CACHED = 20_000
_MOST_HEADER = 256  # bytes of a header that is remembered
_MOST_ID = 64  # characters; ours have 12, and a store may refuse to look for what can be no id
CHALLENGE = ((b"www-authenticate", b"Bearer"),)
NO_KEY = "This needs an API key: send it as 'Authorization: Bearer sk-lexora-…'. Ask whoever runs this gateway for one."
_WRONG_KEY = "This API key is not valid. Check that it is whole, or ask whoever runs this gateway for a new one."


class Auth:
    """Tells callers by their credential. A reload may set the attributes.

    Unless `required`, whoever has no credential of ours is anybody. `prepared` says whether prepared answers need one
    too. `now` gives seconds since the epoch. `say` is told, once a minute at most, that the keys cannot be looked up.
    """

    def __init__(
        self,
        keys: KeyStore,
        tokens: TokenVerifier | None,
        *,
        required: bool,
        prepared: bool,
        user_claim: str = "sub",
        admin_claim: str | None = None,
        admin_value: str = "admin",
        now: Callable[[], float],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.tokens = tokens
        self.required = required
        self.prepared = prepared
        self.user_claim = user_claim
        self.admin_claim = admin_claim
        self.admin_value = admin_value
        self._keys = keys
        self._now = now
        self.complain = Complaints(say, now)
        # By the credential's hash: when the store was asked last, when it answered last, and what.
        self._cache: dict[bytes, tuple[float, float, Key, Caller]] = {}
        # By the header as it came: from when until when that needs no second look. With the next credential after two
        # seconds, it begins anew.
        self._seen: dict[bytes, tuple[float, float, Caller]] = {}
        self._seen_since = 0.0

    def recall(self, authorization: bytes | None) -> Caller | None:
        """Who sends this header, if that needs no second look."""
        if authorization is None:
            return None if self.required else ANYBODY
        seen = self._seen.get(authorization)
        return seen[2] if seen is not None and seen[0] <= self._now() < seen[1] else None

    async def identify(self, authorization: bytes | None) -> Caller | None:
        """Who sends this header; None if it takes a credential and there is none.

        Raises Unauthorized, and AuthUnavailable if it cannot be told.
        """
        if authorization is None:
            return None if self.required else ANYBODY
        token = authorization.decode("latin-1").strip()
        if token[:7].lower() == "bearer ":
            token = token[7:].strip()
        if token.startswith(PREFIX):
            now = self._now()
            if not 0 <= now - self._seen_since < FRESH_SECONDS:
                self._seen, self._seen_since = {}, now
            caller, since, until = self._by_key(token)
            # One key can be sent in many ways.
            if len(self._seen) < _MOST_CACHED and len(authorization) <= _MOST_HEADER:
                self._seen[authorization] = since, until, caller
            return caller
        if self.tokens is not None and token.count(".") == 2:
            return await self._by_token(self.tokens, token)
        if self.required:
            raise Unauthorized(_WRONG_KEY, headers=CHALLENGE)
        return ANYBODY  # clients that must send something send anything

    def _by_key(self, token: str) -> tuple[Caller, float, float]:
        """Whose key it is, and from when until when that is known without a second look."""
        digest = sha256(token.encode()).digest()
        now = self._now()
        cached = self._cache.get(digest)
        if cached is None or not 0 <= now - cached[0] < FRESH_SECONDS:
            cached = self._look_up(token, digest, now, cached)
        key = cached[2]
        if (status := key.status(now)) != "active":
            what = "has expired" if status == "expired" else "was revoked"
            raise Unauthorized(f"This API key {what}. Ask whoever runs this gateway for a new one.", headers=CHALLENGE)
        return cached[3], cached[0], min(cached[0] + FRESH_SECONDS, key.expires_at or inf, key.ends_at or inf)

    def _look_up(
        self, token: str, digest: bytes, now: float, cached: tuple[float, float, Key, Caller] | None
    ) -> tuple[float, float, Key, Caller]:
        key_id = token.removeprefix(PREFIX).partition("-")[0]
        try:
            key = self._keys.get(key_id) if 0 < len(key_id) <= _MOST_ID else None
        except OSError as error:
            self.complain("keys cannot be looked up", error)
            if cached is None or not 0 <= now - cached[1] < STALE_SECONDS:
                raise AuthUnavailable("Keys cannot be checked at the moment. Try again soon.") from None
            # Asked again in a while only, as a store that fails may take its time.
            found = self._cache[digest] = (now, *cached[1:])
            return found
        secret_hash = key.secret_hash if key is not None else "0" * 64
        if not hmac.compare_digest(secret_hash, digest.hex()) or key is None:
            self._cache.pop(digest, None)
            raise Unauthorized(_WRONG_KEY, headers=CHALLENGE)
        if len(self._cache) >= _MOST_CACHED:
            self._cache.clear()
        caller = Caller(
            key.user_id, key.id, key.models, key.priority, key.priority, known(key.limits), key.admin, key.on_behalf
        )
        found = self._cache[digest] = (now, now, key, caller)
        return found

    async def _by_token(self, tokens: TokenVerifier, token: str) -> Caller:
        try:
            claims = await tokens.claims(token)
        except OSError:
            raise AuthUnavailable("Tokens cannot be checked at the moment. Try again soon.") from None
        user = _claim(claims, self.user_claim)
        if not isinstance(user, str) or not user:
            raise Unauthorized(
                f"The token has no claim '{self.user_claim}' that says who it is for.", headers=CHALLENGE
            )
        found = _claim(claims, self.admin_claim) if self.admin_claim else None
        admin = found == self.admin_value or (isinstance(found, list) and self.admin_value in found)
        return Caller(user, admin=admin)


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a dotted path such as `realm_access.roles`."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
