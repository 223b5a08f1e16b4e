"""What a server is asked that counts tokens, held against the types of Anthropic's SDK."""

import pytest
from anthropic.types import MessageCountTokensParams
from anthropic.types.beta import MessageCountTokensParams as BetaParams

from lexora.core.errors import UpstreamBroken
from lexora.providers import token_count
from lexora.providers.messages_door_request import _REFUSED

# A header of its own, and a matter of who pays.
NOT_SENT = {"betas", "billing_policy"}


def test_every_field_of_the_api_is_sent_or_refused() -> None:
    """A field that the SDK comes to know fails here until somebody has decided what becomes of it."""
    known = MessageCountTokensParams.__annotations__.keys() | BetaParams.__annotations__.keys()
    assert known - NOT_SENT - _REFUSED.keys() == {"model", *token_count._FIELDS}


@pytest.mark.parametrize("body", [b'{"input_tokens":19}', b'{"input_tokens":19,"context_management":{}}'])
def test_a_count(body: bytes) -> None:
    assert token_count.counted(body) == 19


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"input_tokens":"19"}', b'{"input_tokens":null}'])
def test_what_is_no_count(body: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        token_count.counted(body)
