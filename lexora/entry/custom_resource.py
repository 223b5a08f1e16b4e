"""The protocol between CloudFormation and a function that stands for a resource."""

import json
import logging
import urllib.request
from collections.abc import Callable
from typing import Any

PHYSICAL_ID = "lexora-seed"  # another one would have CloudFormation delete the resource after an update
_MOST_CHARACTERS = 600  # of a reason: an answer may have 4096 bytes
_PUT_SECONDS = 10

log = logging.getLogger("lexora")


def answer(event: dict[str, Any], work: Callable[[], None]) -> None:
    """Does `work` for a resource that is created or updated, and tells CloudFormation how it went.

    A resource that is deleted needs nothing: what it has filled goes, or stays, with its tables and buckets. Raises
    OSError if CloudFormation cannot be told.
    """
    reason = ""
    if event["RequestType"] != "Delete":
        try:
            work()
        except Exception as error:  # whatever it is, CloudFormation would wait for an hour
            log.exception("the seeding failed")
            reason = f"{type(error).__name__}: {error}"[:_MOST_CHARACTERS] + " - mend this and deploy again"
    body = {
        "Status": "FAILED" if reason else "SUCCESS",
        "Reason": reason,
        "PhysicalResourceId": PHYSICAL_ID,
        **{name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
    }
    # The address is signed for an empty content type; urllib would put one of its own.
    request = urllib.request.Request(  # noqa: S310 - the address is CloudFormation's
        event["ResponseURL"], json.dumps(body, ensure_ascii=False).encode(), {"Content-Type": ""}, method="PUT"
    )
    with urllib.request.urlopen(request, timeout=_PUT_SECONDS):  # noqa: S310
        pass
