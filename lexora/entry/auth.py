"""Who may use the gateway on one machine."""

import logging
import time

from lexora.core.auth import Auth
from lexora.core.ports import KeyStore, TokenVerifier
from lexora.entry.config import Auth as AuthSettings
from lexora.entry.config import Jwt

log = logging.getLogger("lexora")


def create_auth(settings: AuthSettings, keys: KeyStore, *, exposed: bool) -> Auth:
    """Auth as the config says; `exposed` says that others than those on this machine may reach the gateway."""
    auth = Auth(keys, None, required=True, prepared=True, now=time.time, say=log.error)
    change_auth(auth, settings, exposed=exposed)
    return auth


def change_auth(auth: Auth, settings: AuthSettings, before: AuthSettings | None = None, *, exposed: bool) -> None:
    """The same for one that is in use; `before` are the settings that it has."""
    jwt = settings.jwt
    auth.required = exposed if settings.required is None else settings.required
    auth.prepared = settings.prepared_answers
    if before is None or jwt != before.jwt:  # else it keeps the issuer's keys
        auth.tokens = _verifier(jwt) if jwt else None
    if jwt:
        auth.user_claim, auth.admin_claim, auth.admin_value = jwt.user_claim, jwt.admin_claim, jwt.admin_value


def _verifier(jwt: Jwt) -> TokenVerifier:
    from lexora.adapters.oidc import OidcTokens  # its cryptography takes its time

    return OidcTokens(jwt.issuer, jwt.audience, jwt.jwks_url)
