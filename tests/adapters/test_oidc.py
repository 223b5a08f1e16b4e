"""Tokens of a real issuer: a server on this machine with keys made for the test."""

import asyncio
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.utils import base64url_encode

from lexora.adapters.oidc import KEYS_SECONDS, OidcTokens
from lexora.core.auth import CHALLENGE, Auth
from lexora.core.errors import Unauthorized
from tests.support.client import chat_body
from tests.support.gateway import models_config, running_gateway
from tests.support.recorded import completion, json_response, recorded_upstream

RSA = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
PRIVATE: dict[str, Any] = dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSA)
PRIVATE |= {name: ec.generate_private_key(curve) for name, curve in CURVES.items()}
PRIVATE["EdDSA"] = ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, **extra: Any) -> dict[str, Any]:
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        text = RSAAlgorithm.to_jwk(public)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        text = ECAlgorithm.to_jwk(public)
    else:
        text = OKPAlgorithm.to_jwk(public)
    return json.loads(text) | extra


class Issuer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = self.says = f"http://127.0.0.1:{self.server_port}"
        self.keys = [jwk(RSA, kid="a")]
        self.down = False
        self.asked: list[str] = []

    def token(self, key: Any = RSA, algorithm: str = "RS256", kid: str | None = "a", **claims: Any) -> str:
        body = {"iss": self.url, "aud": "lexora", "sub": "ada", "exp": int(time.time()) + 300} | claims
        return jwt.encode(body, key, algorithm, {"kid": kid} if kid else None)


class _Handler(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        issuer = self.server
        issuer.asked.append(self.path)
        keys = {"keys": issuer.keys}
        body = json.dumps({"issuer": issuer.says, "jwks_uri": issuer.url + "/k"} if "well" in self.path else keys)
        self.send_response(500 if issuer.down else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: Any) -> None:
        pass


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


def tokens(issuer: Issuer, clock: Clock | None = None) -> OidcTokens:
    return OidcTokens(issuer.url, "lexora", clock=clock or Clock())


def refused(issuer: Issuer, token: str) -> str:
    with pytest.raises(Unauthorized) as error:
        asyncio.run(tokens(issuer).claims(token))
    assert error.value.headers == CHALLENGE
    assert token not in error.value.message
    return error.value.message


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_every_kind_of_key(issuer: Issuer, algorithm: str) -> None:
    issuer.keys = [jwk(PRIVATE[algorithm], kid="a")]
    for kid in ("a", None):
        token = issuer.token(PRIVATE[algorithm], algorithm, kid)
        assert asyncio.run(tokens(issuer).claims(token))["sub"] == "ada"


def test_bad_tokens(issuer: Issuer) -> None:
    now = int(time.time())
    assert "expired" in refused(issuer, issuer.token(exp=now - 60))
    assert "not valid yet" in refused(issuer, issuer.token(nbf=now + 90))
    assert "another audience" in refused(issuer, issuer.token(aud="x"))
    assert "another issuer" in refused(issuer, issuer.token(iss="http://x"))
    assert "'exp'" in refused(issuer, issuer.token(exp=None))
    assert refused(issuer, issuer.token(OTHER)) == "The token is not valid."
    assert "no such key" in refused(issuer, issuer.token(kid="b"))
    assert "not accepted" in refused(issuer, issuer.token("", "none"))
    secret = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
    head = base64url_encode(b'{"alg":"HS256","kid":"a"}').decode()
    signed = f"{head}.{issuer.token().split('.')[1]}"
    forged = base64url_encode(hmac.digest(secret, signed.encode(), "sha256")).decode()
    assert "not accepted" in refused(issuer, f"{signed}.{forged}")
    assert "not a whole JWT" in refused(issuer, "a.b.c")
    issuer.keys = [jwk(RSA, kid="a", alg="RS256")]
    assert "no such key" in refused(issuer, issuer.token(algorithm="PS256"))
    issuer.keys = [jwk(RSA), jwk(OTHER)]
    assert "no such key" in refused(issuer, issuer.token(kid=None))


def test_an_admin_by_a_list_of_roles(issuer: Issuer) -> None:
    auth = Auth(None, tokens(issuer), required=True, prepared=True, admin_claim="r.roles", now=time.time)  # type: ignore[arg-type]  # no key is asked for
    token = issuer.token(r={"roles": ["x", "admin"]})
    caller = asyncio.run(auth.identify(b"Bearer " + token.encode()))
    assert caller is not None and caller.admin and caller.user_id == "ada"


def test_rotation_and_a_flood_of_unknown_keys(issuer: Issuer) -> None:
    async def run() -> None:
        clock = Clock()
        verifier = tokens(issuer, clock)
        await asyncio.gather(*(verifier.claims(issuer.token(n=n)) for n in range(20)))
        assert len(issuer.asked) == 2
        issuer.keys = [jwk(OTHER, kid="b")]
        for n in range(20):
            with pytest.raises(Unauthorized):
                await verifier.claims(issuer.token(OTHER, kid="b", n=n))
        assert len(issuer.asked) == 2
        clock.time += 11
        await asyncio.gather(*(verifier.claims(issuer.token(OTHER, kid="b", n=n)) for n in range(20)))
        assert len(issuer.asked) == 4

    asyncio.run(run())


def test_an_issuer_that_is_down(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        clock = Clock()
        verifier = tokens(issuer, clock)
        issuer.down = True
        with pytest.raises(OSError, match="cannot be had"):
            await verifier.claims(issuer.token())
        issuer.down = False
        clock.time += 2
        await verifier.claims(issuer.token())
        issuer.down = True
        for n in range(3):
            clock.time += 700
            await verifier.claims(issuer.token(n=n))

    asyncio.run(run())
    assert len(caplog.records) == 2


def test_discovery_of_a_foreign_issuer(issuer: Issuer) -> None:
    issuer.says = "http://other"
    with pytest.raises(OSError, match="cannot be had"):
        asyncio.run(tokens(issuer).claims(issuer.token()))
    assert "/k" not in issuer.asked


def test_a_token_asks_through_the_door(issuer: Issuer, tmp_path: Path) -> None:
    """Of the gateway as it is served: the user is in the record, and an admin by a claim may administer."""
    with recorded_upstream([json_response(completion())]) as upstream:
        own = {"provider": "vllm", "base_url": upstream.base_url, "model": "up"}
        jwt_settings = {"issuer": issuer.url, "audience": "lexora", "admin_claim": "realm.roles"}
        config = {**models_config(m=own), "auth": {"required": True, "jwt": jwt_settings}}
        with running_gateway(tmp_path, config) as gateway:

            def ask(method: str, path: str, token: str) -> httpx2.Response:
                headers = {"authorization": f"Bearer {token}"}
                return httpx2.request(method, f"{gateway.url}{path}", headers=headers, json=chat_body())

            answer = ask("POST", "/v1/chat/completions", issuer.token())
            assert answer.status_code == 200
            assert gateway.record_of(answer.headers["x-request-id"])["user_id"] == "ada"
            refusal = ask("POST", "/v1/chat/completions", issuer.token(OTHER))
            assert (refusal.status_code, refusal.json()["error"]["code"]) == (401, "invalid_api_key")
            assert ask("GET", "/admin/keys", issuer.token()).status_code == 403
            assert ask("GET", "/admin/keys", issuer.token(realm={"roles": ["admin"]})).status_code == 200


def test_a_token_is_remembered_no_longer_than_it_holds(issuer: Issuer) -> None:
    now = Clock()
    now.time = time.time()
    verifier = OidcTokens(issuer.url, "lexora", now=now, clock=Clock())
    token = issuer.token(exp=int(now.time) + 5)
    asyncio.run(verifier.claims(token))
    now.time += 10
    # jwt has the machine's own clock, for which the token holds: what is forgotten is verified again.
    assert not [until for until, _ in verifier._verified.values() if until > now.time]


@pytest.mark.parametrize("key", [jwk(RSA, kid="a", use="enc"), jwk(rsa.generate_private_key(65537, 1024), kid="a")])
def test_a_key_that_is_not_for_signatures_or_too_weak(issuer: Issuer, key: dict[str, Any]) -> None:
    issuer.keys = [key]
    with pytest.raises((OSError, Unauthorized)):
        asyncio.run(tokens(issuer).claims(issuer.token()))


def test_an_answer_without_end_is_not_read(issuer: Issuer) -> None:
    issuer.keys = [jwk(RSA, kid="a", x="x" * 2_000_000)]
    with pytest.raises(OSError, match="cannot be had"):
        asyncio.run(tokens(issuer).claims(issuer.token()))


def test_a_token_is_checked_again_when_the_clock_was_set_back(issuer: Issuer) -> None:
    wall, clock = Clock(), Clock()
    wall.time = time.time() + 86_400
    verifier = OidcTokens(issuer.url, "lexora", now=wall, clock=clock)
    token = issuer.token(exp=int(time.time()) + 200_000)

    async def ask() -> None:
        assert await verifier.claims(token)
        wall.time -= 86_400
        issuer.keys = [jwk(OTHER, kid="a")]
        clock.time += KEYS_SECONDS
        with pytest.raises(Unauthorized):
            await verifier.claims(token)

    asyncio.run(ask())
