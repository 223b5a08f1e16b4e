"""The Responses API through a real gateway, with OpenAI's own SDK: in front of llama.cpp, and of recorded bytes."""

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import httpx2
import openai
import pytest
from openai.lib.streaming.responses import ResponseStream
from pydantic import BaseModel

from lexora.adapters.sqlite_keys import SqliteKeys
from lexora.core.key_admin import create, new_key
from lexora.core.model_map import Deployment
from tests.support.client import UPSTREAM_KEY, sdk
from tests.support.gateway import RunningGateway, models_config, running_gateway
from tests.support.in_process import KNOWN_PROMPT
from tests.support.published import check
from tests.support.recorded import (
    DONE,
    RECORDED,
    STREAM_END,
    STREAM_HEAD,
    Close,
    RecordedUpstream,
    Sleep,
    Until,
    completion,
    error_event,
    finish,
    json_response,
    piece,
    stream,
    token,
    usage,
)
from tests.support.responses import checked_events, checked_response

TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]},
    "strict": True,
}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
CALLED = {
    "index": 0,
    "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
    "finish_reason": "tool_calls",
}


class Weather(BaseModel):
    sky: Literal["clear", "grey"]


@pytest.fixture(scope="module")
def storing(
    _upstream: RecordedUpstream, llamacpp: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """A gateway that stores responses: `m` is the recorded upstream, `tiny` the real llama.cpp."""
    own = {"provider": "vllm", "base_url": _upstream.base_url, "model": "up"}
    tiny = {"provider": "llamacpp", "base_url": llamacpp.base_url, "model": "tiny-chat"}
    claude = {**own, "provider": "anthropic", "credential": "env:UPSTREAM_KEY"}
    hasty = {**own, "timeouts": {"idle": 0.4}}
    config = models_config(m=own, tiny=tiny, hasty=hasty, claude=claude)
    config["responses"] = {"store": True}
    with running_gateway(tmp_path_factory.mktemp("storing"), config, env={"UPSTREAM_KEY": UPSTREAM_KEY}) as running:
        yield running


@pytest.fixture(scope="module")
def client(storing: RunningGateway) -> Iterator[openai.OpenAI]:
    with sdk(storing) as opened:
        yield opened


def key_of(gateway: RunningGateway, user: str, **facts: Any) -> str:
    """A new key of a user's."""
    with closing(SqliteKeys(gateway.folder / "data" / "lexora.db")) as keys:
        _, secret = create(keys, new_key({"user_id": user, **facts}), 1.0, secrets.token_hex(6), secrets.token_hex(22))
    return secret


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def post(gateway: RunningGateway, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
    body = {"model": "m", "input": "Hello", **fields}
    return httpx2.post(f"{gateway.url}/v1/responses", json=body, headers=headers or {}, timeout=30)


def answered(upstream: RecordedUpstream, *texts: str) -> None:
    """Has the upstream answer with these, one after the other."""
    upstream.play(*([json_response(completion(text))] for text in texts))


def sent(upstream: RecordedUpstream, request: int = -1) -> Any:
    return upstream.received[request].json()


# --- in front of llama.cpp ---


def test_a_real_answer(storing: RunningGateway, client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response.create(model="tiny", input="Hello", max_output_tokens=8)
    response = checked_response(raw.content)
    assert (response["status"], response["model"]) == ("incomplete", "tiny-chat")
    assert response["usage"]["output_tokens"] == 8
    assert raw.parse().output_text
    record = storing.record_of(raw.headers["x-request-id"])
    assert response["id"] == f"resp_{record['request_id']}"
    assert (record["endpoint"], record["outcome"], record["tokens_out"]) == ("responses.create", "completed", 8)


def test_a_real_stream_says_what_the_plain_answer_does(storing: RunningGateway) -> None:
    asked: dict[str, Any] = {"model": "tiny", "input": "Hello", "max_output_tokens": 8, "temperature": 0}
    events = checked_events(post(storing, **asked, stream=True).content)
    plain = checked_response(post(storing, **asked).content)
    streamed = events[-1]["response"]
    assert streamed["output"][0]["content"] == plain["output"][0]["content"]
    assert streamed["usage"]["output_tokens"] == 8


def test_a_real_answer_of_a_form(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "input": "Sky?", "text_format": Weather}
    parsed = client.responses.parse(**asked).output_parsed
    assert parsed is not None
    assert parsed.sky in ("clear", "grey")
    with client.responses.stream(**asked) as events:
        assert _final(events).output_parsed is not None


def _final(events: ResponseStream[Any]) -> Any:
    for _ in events:
        pass
    return events.get_final_response()


# --- what arrives upstream, and what comes back ---


def test_the_upstream_gets_a_chat_completion(upstream: RecordedUpstream, storing: RunningGateway) -> None:
    answered(upstream, "Hello.")
    response = post(storing, instructions="Be brief.", max_output_tokens=9, top_k=5, x_priority="low")
    assert upstream.received[0].path == "/v1/chat/completions"
    assert sent(upstream) == {
        "model": "up",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "max_completion_tokens": 9,
        "top_k": 5,
    }
    assert checked_response(response.content)["output"][0]["content"][0]["text"] == "Hello."
    assert response.headers["x-lexora-deployment"] == "vllm/up"
    assert storing.record_of(response.headers["x-request-id"])["priority"] == "low"


def test_the_sdk_reads_a_stream(upstream: RecordedUpstream, client: openai.OpenAI) -> None:
    upstream.play(stream(token("Hel"), token("lo."), finish(), usage(3, 2), DONE))
    with client.responses.stream(model="m", input="Hello") as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") == 2
    assert final.output_text == "Hello."
    assert final.usage is not None
    assert final.usage.total_tokens == 5
    assert sent(upstream)["stream_options"] == {"include_usage": True}
    assert client.responses.retrieve(final.id).output_text == "Hello."


def test_the_sdk_reads_the_calls_of_a_real_stream(upstream: RecordedUpstream, client: openai.OpenAI) -> None:
    """What vLLM sent, and then the output of the call, which is all that the next request says."""
    sse = (RECORDED / "openai" / "vllm-tools.sse").read_bytes()
    upstream.play([STREAM_HEAD, piece(sse), STREAM_END], [json_response(completion("Cold."))])
    tools = [{**TOOL, "name": "set_light"}]
    with client.responses.stream(model="m", input="Hello", tools=tools) as events:
        final = _final(events)
    calls = [item for item in final.output if item.type == "function_call"]
    assert [json.loads(call.arguments) for call in calls]  # whatever a model of chance says, it is JSON
    outputs: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "7"} for call in calls]
    client.responses.create(model="m", previous_response_id=final.id, input=outputs, tools=tools)
    said = sent(upstream)["messages"]
    assert [call["id"] for call in said[1]["tool_calls"]] == [call.call_id for call in calls]
    assert [message["role"] for message in said] == ["user", "assistant", *["tool"] * len(calls)]


def test_the_same_in_front_of_anthropic(upstream: RecordedUpstream, client: openai.OpenAI) -> None:
    said = {"type": "text", "text": "Hello."}
    tool = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo"}}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "c", "content": [said, tool]}
    counted = {"input_tokens": 5, "output_tokens": 3}
    upstream.play([json_response({**message, "stop_reason": "tool_use", "usage": counted})])
    response = client.responses.create(model="claude", input="Hello", tools=[TOOL])
    assert upstream.received[0].path == "/v1/messages"
    assert [item.type for item in response.output] == ["message", "function_call"]
    assert response.usage is not None
    assert response.usage.total_tokens == 8


def test_a_prepared_answer_is_a_response(storing: RunningGateway) -> None:
    response = post(storing, input=KNOWN_PROMPT)
    assert response.headers["x-lexora-origin"] == "fixed"
    text = checked_response(response.content)["output"][0]["content"][0]["text"]
    assert text
    events = checked_events(post(storing, input=KNOWN_PROMPT, stream=True).content)
    assert events[-1]["response"]["output"][0]["content"][0]["text"]


# --- what is stored ---


def test_a_conversation_goes_on(upstream: RecordedUpstream, client: openai.OpenAI) -> None:
    answered(upstream, "Hi.", "Fine.")
    one = client.responses.create(model="m", input="Hello")
    two = client.responses.create(model="m", input="How are you?", previous_response_id=one.id)
    assert sent(upstream)["messages"] == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "How are you?"},
    ]
    assert two.previous_response_id == one.id
    assert client.responses.retrieve(one.id) == one
    client.responses.delete(one.id)
    for act in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            act(one.id)
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(model="m", input="And?", previous_response_id=two.id)
    assert (error.value.param, error.value.code) == ("previous_response_id", "previous_response_not_found")


def test_the_items_of_a_conversation_are_listed(upstream: RecordedUpstream, client: openai.OpenAI) -> None:
    upstream.play([json_response(completion(None, choices=[CALLED]))], [json_response(completion("Clear."))])  # type: ignore[arg-type]
    one = client.responses.create(model="m", input="Weather?", tools=[TOOL])
    output: Any = {"type": "function_call_output", "call_id": "c1", "output": "clear"}
    more: Any = [
        output,
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": [{"type": "input_text", "text": "And?"}]},
    ]
    two = client.responses.create(model="m", input=more, previous_response_id=one.id)
    url = f"/responses/{two.id}/input_items"
    whole = client.get(url, cast_to=object, options={"params": {"order": "asc"}})
    check("openai", "ResponseItemList", whole)
    items: Any = list(client.responses.input_items.list(two.id, order="asc"))
    assert [item.type for item in items] == ["message", "function_call", "function_call_output", "message", "message"]
    assert items[0].content[0].text == "Weather?"
    assert (items[1].id, items[1].name) == (one.output[0].id, "get_weather")
    assert (items[2].output, items[2].status) == ("clear", "completed")
    assert (items[3].role, items[3].content[0].type) == ("assistant", "output_text")
    ids = [item.id for item in items]
    assert len(set(ids)) == 5
    assert [item.id for item in client.responses.input_items.list(two.id, limit=2)] == ids[::-1]  # page by page
    first = client.responses.input_items.list(one.id)
    assert ([item.id for item in first.data], first.has_more) == (ids[:1], False)
    client.responses.delete(one.id)
    assert [item.id for item in client.responses.input_items.list(two.id, order="asc")] == ids[2:]
    for query, param in (
        ({"limit": 0}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "x"}, "after"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.get(url, cast_to=object, options={"params": query})
        assert refused.value.param == param
    with pytest.raises(openai.NotFoundError):
        client.responses.input_items.list(one.id)


def test_what_delete_says(upstream: RecordedUpstream, storing: RunningGateway) -> None:
    answered(upstream, "Hi.")
    made = post(storing).json()
    url = f"{storing.url}/v1/responses/{made['id']}"
    shown = httpx2.get(url)
    assert (shown.json(), shown.headers["cache-control"]) == (made, "no-store")
    assert httpx2.delete(url).json() == {"id": made["id"], "object": "response", "deleted": True}
    assert httpx2.get(url).status_code == 404


def test_store_false_leaves_nothing(upstream: RecordedUpstream, storing: RunningGateway) -> None:
    answered(upstream, "Hi.")
    made = post(storing, store=False).json()
    assert made["store"] is False
    assert httpx2.get(f"{storing.url}/v1/responses/{made['id']}").status_code == 404


def test_a_response_is_its_users_alone(upstream: RecordedUpstream, storing: RunningGateway) -> None:
    answered(upstream, "Hi.")
    ann, bob, also_ann = (bearer(key_of(storing, user)) for user in ("ann", "bob", "ann"))
    mine = post(storing, ann).json()
    url = f"{storing.url}/v1/responses/{mine['id']}"
    assert httpx2.get(url, headers=also_ann).json() == mine
    reference = {"type": "item_reference", "id": mine["output"][0]["id"]}
    for other in (bob, {}):
        for method, path in (("GET", url), ("GET", f"{url}/input_items"), ("DELETE", url)):
            assert httpx2.request(method, path, headers=other).status_code == 404
        assert post(storing, other, previous_response_id=mine["id"]).json()["error"]["param"] == "previous_response_id"
        assert post(storing, other, input=[reference]).json()["error"]["code"] == "item_not_found"
    assert httpx2.get(url, params={"x_user_id": "ann"}, headers=bob).status_code == 404
    assert len(upstream.received) == 1
    assert httpx2.get(url, headers=ann).json() == mine


def test_in_whose_name(upstream: RecordedUpstream, storing: RunningGateway) -> None:
    answered(upstream, "Hi.")
    service, cem = bearer(key_of(storing, "service", on_behalf=True)), bearer(key_of(storing, "cem"))
    made = post(storing, service, x_user_id="cem").json()
    url = f"{storing.url}/v1/responses/{made['id']}"
    assert httpx2.get(url, headers=service).status_code == 404
    assert httpx2.get(url, params={"x_user_id": "cem"}, headers=service).json() == made
    assert httpx2.get(url, headers=cem).json() == made
    assert post(storing, service, x_user_id="dan", previous_response_id=made["id"]).status_code == 400


def test_a_wrong_key_sees_nothing(upstream: RecordedUpstream, storing: RunningGateway) -> None:
    answered(upstream, "Hi.")
    made = post(storing).json()
    wrong = bearer("sk-lexora-000000000000-wrong")
    for method in ("GET", "DELETE"):
        assert httpx2.request(method, f"{storing.url}/v1/responses/{made['id']}", headers=wrong).status_code == 401
    assert post(storing, wrong, previous_response_id=made["id"]).status_code == 401


def test_a_stored_response_is_not_streamed(
    upstream: RecordedUpstream, storing: RunningGateway, client: openai.OpenAI
) -> None:
    answered(upstream, "Hi.")
    made = post(storing).json()
    with pytest.raises(openai.BadRequestError, match="cannot be streamed"):
        client.responses.retrieve(made["id"], stream=True)


def test_nothing_is_stored_unless_the_config_says_so(upstream: RecordedUpstream, door: RunningGateway) -> None:
    answered(upstream, "Hi.")
    with sdk(door) as client:
        _nothing_is_stored(client)
    assert not (door.folder / "data" / "responses.db").exists()


def _nothing_is_stored(client: openai.OpenAI) -> None:
    made = client.responses.create(model="m", input="Hello", store=True)
    assert made.model_extra is not None
    assert made.model_extra["store"] is False
    for act in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError, match="stores no responses"):
            act(made.id)
    with pytest.raises(openai.BadRequestError, match="stores no responses"):
        client.responses.create(model="m", input="And?", previous_response_id=made.id)


def test_stored_responses_outlive_a_restart(
    _upstream: RecordedUpstream, upstream: RecordedUpstream, folder: Path
) -> None:
    answered(upstream, "Hi.", "Fine.")
    own = {"provider": "vllm", "base_url": _upstream.base_url, "model": "up"}
    config = {**models_config(m=own), "responses": {"store": True}}
    with running_gateway(folder, config) as running:
        made = post(running).json()
    with running_gateway(folder, config) as running:
        assert httpx2.get(f"{running.url}/v1/responses/{made['id']}").json() == made
        post(running, previous_response_id=made["id"])
    assert len(sent(upstream)["messages"]) == 3


def test_nothing_is_stored_of_somebody_unknown(folder: Path) -> None:
    config = {"auth": {"required": True}, "responses": {"store": True}}
    with running_gateway(folder, config) as running:
        made = post(running, input=KNOWN_PROMPT)
        assert (made.status_code, made.json()["store"]) == (200, False)
        assert httpx2.get(f"{running.url}/v1/responses/{made.json()['id']}").status_code == 401
        assert post(running).status_code == 401
        known = bearer(key_of(running, "ann"))
        assert httpx2.get(f"{running.url}/v1/responses/{made.json()['id']}", headers=known).status_code == 404
        mine = post(running, known, input=KNOWN_PROMPT).json()
        assert mine["store"] is True
        assert post(running, previous_response_id=mine["id"]).status_code == 401


# --- errors ---


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "nobody"}, 404, "model"),
        ({"tools": [{"type": "web_search"}]}, 400, "tools[0].type"),
        ({"background": True}, 400, "background"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "a"}]}]},
            400,
            "input[0].content[0].file_id",
        ),
        ({"model": "claude", "text": {"format": {"type": "json_object"}}}, 400, "text.format"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_cannot_be_done(
    fields: dict[str, Any], status: int, param: str, streamed: bool, upstream: RecordedUpstream, storing: RunningGateway
) -> None:
    response = post(storing, **fields, stream=streamed)
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert not upstream.received
    record = storing.record_of(response.headers["x-request-id"])
    assert (record["endpoint"], record["outcome"]) == ("responses.create", "failed")


def test_no_json_and_no_body(storing: RunningGateway) -> None:
    url = f"{storing.url}/v1/responses"
    assert httpx2.post(url, content=b"{}").status_code == 415
    response = httpx2.post(url, content=b"{", headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")
    assert httpx2.get(url).status_code == 405


def test_an_upstreams_refusal_names_the_clients_field(upstream: RecordedUpstream, client: openai.OpenAI) -> None:
    error = {"error": {"message": "Too long.", "type": "invalid_request_error", "param": "messages", "code": "x"}}
    upstream.play([json_response(error, "400 Bad Request")])
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="m", input="Hello")
    assert (refused.value.param, refused.value.code) == ("input", "x")


def test_an_answer_that_is_none(upstream: RecordedUpstream, storing: RunningGateway) -> None:
    upstream.play([json_response({"choices": [{"message": {"content": 1}}]})])
    response = post(storing)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_broken")


@pytest.mark.parametrize("how", ["cut", "reported", "stalled", "strange"])
def test_a_stream_that_breaks_is_never_taken_for_whole(
    how: str, upstream: RecordedUpstream, storing: RunningGateway
) -> None:
    ends: dict[str, list[Any]] = {
        "cut": [Close()],
        "reported": [piece(error_event("It broke.", type="server_error", code=500)), STREAM_END],
        "stalled": [Sleep(float("inf"))],
        "strange": [piece(b'data: {"choices": [{"index": 0, "delta": {"content": 1}}]}\n\n'), piece(DONE), STREAM_END],
    }
    upstream.play([STREAM_HEAD, piece(token("Hel")), *ends[how]])
    model = "hasty" if how == "stalled" else "m"
    response = post(storing, model=model, stream=True)
    events = checked_events(response.content)
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    failed = events[-1]["response"]
    assert failed["output"][0]["content"][0]["text"] == "Hel"
    assert failed["output"][0]["status"] == "incomplete"
    record = storing.record_of(response.headers["x-request-id"])
    assert record["outcome"] == "failed"
    assert httpx2.get(f"{storing.url}/v1/responses/{failed['id']}").status_code == 404


def test_the_sdk_raises_what_broke_a_stream(upstream: RecordedUpstream, client: openai.OpenAI) -> None:
    upstream.play([STREAM_HEAD, piece(token("Hel")), Close()])
    said = ""
    with pytest.raises(openai.APIError) as broken:
        for event in client.responses.create(model="m", input="Hello", stream=True):
            said += event.delta if event.type == "response.output_text.delta" else ""
    assert said == "Hel"
    assert broken.value.code == "upstream_broken"


def test_a_client_that_leaves_frees_the_upstream(upstream: RecordedUpstream, client: openai.OpenAI) -> None:
    upstream.play([STREAM_HEAD, piece(token("Hel")), Sleep(float("inf"))])
    with client.responses.create(model="m", input="Hello", stream=True) as events:
        for event in events:
            if event.type == "response.output_text.delta":
                break
    upstream.wait_until_left()


def test_every_event_goes_out_as_it_comes(upstream: RecordedUpstream, storing: RunningGateway) -> None:
    more = threading.Event()
    upstream.play([STREAM_HEAD, piece(token("Hel")), Until(more), piece(finish() + DONE), STREAM_END])
    body = {"model": "m", "input": "Hello", "stream": True}
    with httpx2.stream("POST", f"{storing.url}/v1/responses", json=body, timeout=30) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        said = ""
        for text in response.iter_text():
            said += text
            if '"delta":"Hel"' in said:
                assert not more.is_set() or "response.completed" in said
                more.set()
    assert checked_events(said.encode())[-1]["type"] == "response.completed"
