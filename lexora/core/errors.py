"""Every error a client can be told about.

LexoraError
├── InvalidRequest           400   the request cannot be understood, or asks what nobody here can do
│   ├── Unauthorized         401   no key, or none that is valid
│   ├── Forbidden            403   the key does not allow it
│   ├── HostNotAllowed       403   the Host header names somebody else
│   ├── RequestTimeout       408   the body did not come
│   ├── NotFound             404   no such path or prepared answer
│   ├── ModelNotFound        404   no such model
│   ├── NotOffered           400   the deployment's API has nothing of the kind; another one may
│   ├── MethodNotAllowed     405
│   ├── PayloadTooLarge      413
│   └── UnsupportedMediaType 415
├── RateLimited              429   more requests or tokens a minute than allowed
├── BudgetExceeded           429   the money for the day or month is spent
├── AuthUnavailable          503   keys or tokens cannot be checked
├── LimitsUnavailable        503   the store of the limits does not answer
├── NoModelConnected         503   there is nothing to forward to
├── AnswersUnavailable       503   the store of the prepared answers does not answer
├── ResponsesUnavailable     503   the store of the responses does not answer
├── DeadlineExceeded         504   `x_timeout` or the deployment's total timeout ran out
└── UpstreamError            …     what became of a call to an upstream
    ├── UpstreamUnreachable  502   not connected: nothing was sent, so another deployment may be tried
    │   └── CredentialMissing 503  nor can it be, without the key
    ├── CannotContinue       502   another's answer cannot be completed there
    ├── Busy                 503   nothing was sent: no place in the queue, the circuit is open, or the server sleeps
    ├── UpstreamBroken       502   cut, closed, or not understandable
    ├── UpstreamTimeout      504   stalled
    └── UpstreamRefused      …     the upstream's own error
"""

from math import ceil
from typing import ClassVar

Headers = tuple[tuple[bytes, bytes], ...]

# For what cannot be reached now and may be there at any moment: seconds.
SOON: Headers = ((b"retry-after", b"2"),)


class LexoraError(Exception):
    """An error that the client is told about, in OpenAI's envelope."""

    status: int = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None
    default_headers: ClassVar[Headers] = ()

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code
        self.headers = headers or self.default_headers

    def envelope(self) -> dict[str, dict[str, str | None]]:
        """The body of the response (https://platform.openai.com/docs/guides/error-codes)."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequest(LexoraError):
    status = 400
    type = "invalid_request_error"


class Unauthorized(InvalidRequest):
    status = 401
    default_code = "invalid_api_key"


class Forbidden(InvalidRequest):
    status = 403
    default_code = "permission_denied"


class HostNotAllowed(InvalidRequest):
    status = 403
    default_code = "host_not_allowed"


class RequestTimeout(InvalidRequest):
    status = 408
    default_code = "request_timeout"


class NotFound(InvalidRequest):
    status = 404
    default_code = "not_found"


class ModelNotFound(InvalidRequest):
    status = 404
    default_code = "model_not_found"


class NotOffered(InvalidRequest):
    default_code = "not_offered"


class MethodNotAllowed(InvalidRequest):
    status = 405
    default_code = "method_not_allowed"


class PayloadTooLarge(InvalidRequest):
    status = 413
    default_code = "payload_too_large"


class UnsupportedMediaType(InvalidRequest):
    status = 415
    default_code = "unsupported_media_type"


class RateLimited(LexoraError):
    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class BudgetExceeded(LexoraError):
    status = 429
    type = "insufficient_quota"
    default_code = "insufficient_quota"


class AuthUnavailable(LexoraError):
    status = 503
    type = "service_unavailable"
    default_code = "auth_unavailable"
    default_headers = SOON


class LimitsUnavailable(LexoraError):
    status = 503
    type = "service_unavailable"
    default_code = "limits_unavailable"
    default_headers = SOON


class NoModelConnected(LexoraError):
    status = 503
    type = "service_unavailable"
    default_code = "no_model_connected"


class AnswersUnavailable(LexoraError):
    status = 503
    type = "service_unavailable"
    default_code = "answers_unavailable"
    default_headers = SOON


class ResponsesUnavailable(LexoraError):
    status = 503
    type = "service_unavailable"
    default_code = "responses_unavailable"


class DeadlineExceeded(LexoraError):
    status = 504
    type = "timeout_error"
    default_code = "deadline_exceeded"


class UpstreamError(LexoraError):
    """`retry_after` is when the upstream wants to be asked again, in seconds."""

    status = 502
    type = "upstream_error"
    retry_after: float | None = None


class UpstreamUnreachable(UpstreamError):
    default_code = "upstream_unreachable"


class CredentialMissing(UpstreamUnreachable):
    status = 503
    type = "service_unavailable"
    default_code = "credential_missing"


class CannotContinue(UpstreamError):
    """What was broken stays so, unless the next deployment can go on."""

    default_code = "cannot_continue"


class Busy(UpstreamError):
    """`code` says why: queue_full, queue_timeout, circuit_open, model_asleep."""

    status = 503
    type = "service_unavailable"


class UpstreamBroken(UpstreamError):
    default_code = "upstream_broken"


class UpstreamTimeout(UpstreamError):
    status = 504
    default_code = "upstream_timeout"


class UpstreamRefused(UpstreamError):
    """The upstream answered with an error of its own.

    `status` is the one the client gets; `upstream_status` the one that was received (0 inside a 200 stream).
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        upstream_status: int,
        error_type: str = "upstream_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        headers = ((b"retry-after", b"%d" % ceil(retry_after)),) if retry_after is not None else ()
        super().__init__(message, param=param, code=code, headers=headers)
        self.retry_after = retry_after
        self.status = status
        self.upstream_status = upstream_status
        self.error_type = error_type

    def envelope(self) -> dict[str, dict[str, str | None]]:
        return {"error": {"message": self.message, "type": self.error_type, "param": self.param, "code": self.code}}


class ClientLeft(Exception):
    """The client closed its connection before the answer was complete."""
