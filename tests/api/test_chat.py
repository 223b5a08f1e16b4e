"""Chat completions through a real gateway."""

from pathlib import Path

import openai

from tests.support.gateway import RunningGateway, models_config, running_gateway
from tests.support.recorded import completion, json_response, recorded_upstream


def test_forwards_a_plain_chat_to_llamacpp(gateway: RunningGateway) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none")
    answer = client.chat.completions.with_raw_response.create(
        model="tiny", messages=[{"role": "user", "content": "Say hello."}], max_tokens=5
    )
    parsed = answer.parse()
    assert parsed.model == "tiny-chat"
    assert parsed.usage is not None
    record = gateway.record_of(answer.headers["x-request-id"])
    assert record["tokens_out"] == parsed.usage.completion_tokens == 5


def test_unknown_fields_arrive_untouched_and_extensions_do_not(folder: Path) -> None:
    with recorded_upstream([json_response(completion())]) as upstream:
        config = models_config(m={"provider": "vllm", "base_url": upstream.base_url, "model": "up"})
        with running_gateway(folder, config) as gateway:
            client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
            client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "Hello"}],
                extra_body={"top_k": 5, "big": 10**30, "x_priority": "high", "x_mine": 1},
            )
        (received,) = upstream.received
        assert received.json() == {
            "model": "up",
            "messages": [{"role": "user", "content": "Hello"}],
            "top_k": 5,
            "big": 10**30,
        }
