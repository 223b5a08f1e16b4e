"""Runs ministack with what its CloudFormation lacks. A program of its own: tests.support.emulator starts it."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from ministack.app import main
from ministack.services import s3
from ministack.services.cloudformation import provisioners

_Properties = dict[str, Any]


def _camel_case(value: Any) -> Any:
    """`{"AllowOrigins": …}` as `{"allowOrigins": …}`, at any depth."""
    if isinstance(value, dict):
        return {name[:1].lower() + name[1:]: _camel_case(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_camel_case(inner) for inner in value]
    return value


def _mend_cors(handlers: dict[str, Callable[..., Any]]) -> None:
    """HTTP APIs read their CORS settings in camelCase; CloudFormation's are left in PascalCase."""
    create, update = handlers["create"], handlers["update"]

    def mended(properties: _Properties) -> _Properties:
        cors = properties.get("CorsConfiguration")
        return {**properties, "CorsConfiguration": _camel_case(cors)} if cors else properties

    handlers["create"] = lambda logical_id, properties, stack: create(logical_id, mended(properties), stack)
    handlers["update"] = lambda physical_id, old, new, stack, *rest: update(
        physical_id, mended(old), mended(new), stack, *rest
    )


def _mend_bucket_tags(handlers: dict[str, Callable[..., Any]]) -> None:
    """A bucket's tags are dropped, and CDK empties no bucket on deletion that lacks its tag."""
    create, update = handlers["create"], handlers["update"]

    def tagged(made: tuple[str, Any], properties: _Properties) -> tuple[str, Any]:
        if tags := properties.get("Tags"):
            s3._bucket_tags[made[0]] = {tag["Key"]: tag["Value"] for tag in tags}
        return made

    handlers["create"] = lambda logical_id, properties, stack: tagged(create(logical_id, properties, stack), properties)
    handlers["update"] = lambda physical_id, old, new, *rest: tagged(update(physical_id, old, new, *rest), new)


def _end_with_the_starter() -> None:
    """Ends this process when nobody holds the other end of standard input any more: tests may be killed."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    _mend_cors(provisioners._RESOURCE_HANDLERS["AWS::ApiGatewayV2::Api"])
    _mend_bucket_tags(provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"])
    main()
