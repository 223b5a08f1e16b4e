"""AWS's Signature Version 4 (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).

Written here, as the library that has it weighs more than the gateway (docs/decisions/0011-bedrock-without-an-sdk.md).
"""

import hmac
import re
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"
# …us-east-1.amazonaws.com, …cn-north-1.amazonaws.com.cn, …eusc-de-east-1.amazonaws.eu, …us-east-1.api.aws, also of a
# private endpoint (…us-east-1.vpce.amazonaws.com).
_REGION = re.compile(r"\.([a-z]{2,4}(?:-[a-z]+)+-\d+)\.(?:vpce\.)?(?:amazonaws|api)\.")


class Identity(NamedTuple):
    """Who asks: the keys of a user or a role, whose come with a `token`; and the region where no address tells it."""

    key_id: str
    secret: str
    token: str = ""
    region: str = ""


def region_of(host: str) -> str | None:
    """The region that a host of AWS's is in, None if its name does not tell."""
    found = _REGION.search(host)
    return found[1] if found else None


def signed(
    identity: Identity, headers: Mapping[str, str], path: str, body: bytes, *, service: str, now: float
) -> dict[str, str]:
    """The headers that a POST needs besides its others to be taken for `identity`'s.

    `headers` are those others, by lower-case names, `host` among them; `path` is as it is sent, with its query. `now`
    is Unix time in seconds.
    """
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    ours = {"x-amz-date": moment, **({"x-amz-security-token": identity.token} if identity.token else {})}
    # Whoever passes the request on may change the others.
    to_sign = {name: value for name, value in headers.items() if name in ("host", "content-type") or _is_amazons(name)}
    lines = sorted({**to_sign, **ours}.items())
    names = ";".join(name for name, _ in lines)
    path, _, query = path.partition("?")
    canonical = "\n".join(
        [
            "POST",
            quote(path, safe="/~"),
            "&".join(sorted(query.split("&"))),
            *(f"{name}:{' '.join(value.split())}" for name, value in lines),
            "",
            names,
            sha256(body).hexdigest(),
        ]
    )
    region = region_of(headers["host"]) or identity.region
    scope = (moment[:8], region, service, "aws4_request")
    to_hash = "\n".join([_ALGORITHM, moment, "/".join(scope), sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{identity.secret}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_hash.encode(), "sha256").hex()
    credential = "/".join([identity.key_id, *scope])
    authorization = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return {**ours, "authorization": authorization}


def _is_amazons(name: str) -> bool:
    return name.startswith("x-amz")
