"""Prepared answers: fetched by their path, and as answers to a chat that asks a known prompt."""

import json
import unicodedata
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from lexora.entry.prepared import SHIPPED, load_prepared
from tests.support.client import events, sdk
from tests.support.gateway import RunningGateway
from tests.support.recorded import RecordedUpstream, completion, json_response

CATALOGUE, ANSWERS = load_prepared(SHIPPED)
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
CAPITAL = "日本の首都はどこですか？"
CAPITALS = {ANSWERS[CAPITAL, variant] for variant in range(5)}
VARIANTS = [(entry.id, entry.prompt, variant) for entry in CATALOGUE.prompts for variant in range(entry.variants)]


def ask(client: openai.OpenAI, prompt: str, **fields: Any) -> Any:
    return client.chat.completions.create(model="chat", messages=[{"role": "user", "content": prompt}], **fields)


@pytest.mark.parametrize(("prompt_id", "prompt", "variant"), VARIANTS)
def test_every_variant_has_a_path(web: httpx2.Client, prompt_id: str, prompt: str, variant: int) -> None:
    response = web.get(f"/responses/{prompt_id}/{variant}.json")
    file = SHIPPED / "responses" / prompt_id / f"{variant}.json"
    assert response.status_code == 200
    assert response.json() == json.loads(file.read_text()) == {"response": ANSWERS[prompt, variant]}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-lexora-origin"] == "edge"
    assert response.headers["x-lexora-deployment"] == f"edge/{prompt_id}/{variant}"
    assert response.headers["x-lexora-cost-usd"] == "0"
    short = web.get(f"/responses/{prompt_id.partition('_')[0]}/{variant}.json")
    assert short.content == response.content


@pytest.mark.parametrize(
    "path", ["q1_capital/5", "q1_capital/-1", "q1_capital/01", "q0_none/0", "q1_capita/0", "q/0", "%00/0"]
)
def test_a_variant_that_there_is_not_is_not_found(web: httpx2.Client, path: str) -> None:
    response = web.get(f"/responses/{path}.json")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_random_is_any_of_them_and_never_kept(web: httpx2.Client) -> None:
    found = [web.get(f"/responses/{name}/random.json") for name in ("q1", "q1_capital") for _ in range(40)]
    assert {answer.json()["response"] for answer in found} == CAPITALS
    assert {answer.headers["cache-control"] for answer in found} == {"no-store"}
    assert web.get("/responses/q0_none/random.json").status_code == 404


def test_an_answer_may_be_cached_and_is_validated_by_its_tag(site: RunningGateway, web: httpx2.Client) -> None:
    path = "/responses/q1_capital/0.json"
    first = web.get(path)
    assert "public" in first.headers["cache-control"]
    again = web.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert web.get(path, headers={"if-none-match": '"other"'}).status_code == 200
    assert web.get("/responses/q1_capital/1.json").headers["etag"] != first.headers["etag"]
    assert site.record_of(again.headers["x-request-id"])["status"] == 304


def test_the_catalogue_says_what_is_prepared(site: RunningGateway, web: httpx2.Client) -> None:
    path, records = "/responses/catalogue.json", len(site.records())
    response = web.get(path)
    written = json.loads((SHIPPED / "catalogue.json").read_text())["prompts"]
    assert response.json() == {"prompts": [{"variants": 5, **entry} for entry in written]}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "public, max-age=300, stale-while-revalidate=86400"
    assert response.headers["access-control-allow-origin"] == "*"
    again = web.get(path, headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", response.headers["etag"])
    head = web.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(response.content))
    assert len(site.records()) == records, "it is no answer"


def test_a_fetched_answer_is_recorded(site: RunningGateway, web: httpx2.Client) -> None:
    request_id = web.get("/responses/q5_sky/2.json").headers["x-request-id"]
    record = site.record_of(request_id)
    assert (record["endpoint"], record["origin"], record["deployment"]) == ("responses", "edge", "edge/q5_sky/2")
    assert (record["status"], record["outcome"], record["cost_usd"], record["attempts"]) == (200, "completed", 0, 0)
    assert site.log_line_of(request_id)["message"] == "prepared_answer"


@pytest.mark.parametrize("entry", CATALOGUE.prompts, ids=lambda entry: entry.id)
def test_every_prompt_and_alias_is_answered_as_a_chat(site: RunningGateway, web: httpx2.Client, entry: Any) -> None:
    for wording in (entry.prompt, *entry.aliases):
        response = web.post(CHAT, json={"messages": [{"role": "user", "content": wording}]})
        assert response.headers["x-lexora-origin"] == "fixed"
        assert response.headers["x-lexora-deployment"].startswith(f"fixed/{entry.id}/")
        variant = int(response.headers["x-lexora-deployment"].rpartition("/")[2])
        text = response.json()["choices"][0]["message"]["content"]
        assert text == ANSWERS[entry.prompt, variant]


def test_every_variant_comes_sooner_or_later(web: httpx2.Client) -> None:
    seen = set()
    for _ in range(300):
        response = web.post(CHAT, json={"messages": [{"role": "user", "content": CAPITAL}]})
        seen.add(response.json()["choices"][0]["message"]["content"])
        if len(seen) == 5:
            break
    assert seen == CAPITALS


@pytest.mark.parametrize(("seed", "variant"), [(0, 0), (4, 4), (5, 0), (9_007_199_254_740_993, 3)])
def test_a_seed_says_which_variant(web: httpx2.Client, seed: int, variant: int) -> None:
    content = json.dumps({"messages": [{"role": "user", "content": CAPITAL}], "seed": seed})
    for body in (content, content.replace(":", " : ")):
        deployments = {web.post(CHAT, content=body, headers=JSON).headers["x-lexora-deployment"] for _ in range(5)}
        assert deployments == {f"fixed/q1_capital/{variant}"}


@pytest.mark.parametrize("seed", ["null", "-1", "1.5", '"1"', "[]", "1" * 5000])
def test_any_other_seed_leaves_it_to_chance(web: httpx2.Client, seed: str) -> None:
    content = json.dumps({"messages": [{"role": "user", "content": CAPITAL}], "seed": "?"}).replace('"?"', seed)
    assert len({web.post(CHAT, content=content, headers=JSON).headers["x-lexora-deployment"] for _ in range(40)}) > 1


@pytest.mark.parametrize(
    "prompt",
    [
        CAPITAL,
        f"  {CAPITAL}\n",
        "日本の首都はどこですか",
        "日本の首都はどこですか?",
        "日本の首都はどこですか。",
        "　日本の首都はどこですか？　",
        "ＢＭＩの計算式は？",
        "bmiの計算式は?",
        "Pythonのﾘｽﾄとﾀﾌﾟﾙの違いは何ですか",
        "Ｐｙｔｈｏｎのリストとタプルの違いは何ですか？",
        unicodedata.normalize("NFD", "BMIはどうやって計算しますか？"),
    ],
)
def test_how_a_prompt_is_written_does_not_matter(web: httpx2.Client, prompt: str) -> None:
    for body in (
        {"messages": [{"role": "user", "content": prompt}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": prompt}]}]},
    ):
        for ascii_only in (True, False):
            content = json.dumps(body, ensure_ascii=ascii_only).encode()
            response = web.post(CHAT, content=content, headers={"content-type": "application/json"})
            assert response.headers["x-lexora-origin"] == "fixed"


def test_a_prepared_answer_is_a_complete_completion(site: RunningGateway) -> None:
    with sdk(site) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="chat", messages=[{"role": "user", "content": CAPITAL}]
        )
    data = json.loads(raw.content)
    parsed = ChatCompletion.model_validate(data, strict=True)
    assert parsed.to_dict() == data
    assert parsed.id == f"chatcmpl-{raw.headers['x-request-id']}"
    assert parsed.choices[0].finish_reason == "stop"
    assert parsed.choices[0].message.content in CAPITALS
    assert parsed.usage is not None
    assert parsed.usage.prompt_tokens == 12
    assert parsed.usage.completion_tokens > 10
    assert parsed.usage.total_tokens == parsed.usage.prompt_tokens + parsed.usage.completion_tokens


@pytest.mark.parametrize("include_usage", [None, False, True])
def test_a_prepared_answer_is_streamed_when_asked_to(
    site: RunningGateway, web: httpx2.Client, include_usage: Any
) -> None:
    options = {} if include_usage is None else {"stream_options": {"include_usage": include_usage}}
    body = {"messages": [{"role": "user", "content": CAPITAL}], "stream": True, **options}
    response = web.post(CHAT, json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-lexora-origin"] == "fixed"
    *chunks, done = events(response)
    assert done == "[DONE]"
    for chunk in chunks:
        assert ChatCompletionChunk.model_validate(chunk, strict=True).to_dict() == chunk
    assert {chunk["id"] for chunk in chunks} == {f"chatcmpl-{response.headers['x-request-id']}"}
    with (
        sdk(site) as client,
        client.chat.completions.stream(model="chat", messages=body["messages"], **options) as stream,
    ):
        final = stream.get_final_completion()
    assert final.choices[0].message.content in CAPITALS
    assert final.choices[0].finish_reason == "stop"
    assert (final.usage is not None) == bool(include_usage)
    if final.usage is not None:
        assert final.usage.total_tokens == final.usage.prompt_tokens + final.usage.completion_tokens > 20


def test_the_streamed_answer_is_the_one_that_its_header_names(site: RunningGateway) -> None:
    with sdk(site) as client:
        for _ in range(8):
            raw = client.chat.completions.with_raw_response.create(
                model="chat", messages=[{"role": "user", "content": CAPITAL}], stream=True
            )
            variant = int(raw.headers["x-lexora-deployment"].rpartition("/")[2])
            text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse())
            assert text == ANSWERS[CAPITAL, variant]


@pytest.mark.parametrize("model", [None, "", "chat", "gpt-4o-mini", "a-model-that-nobody-has"])
def test_the_model_that_is_asked_for_does_not_matter(web: httpx2.Client, model: str | None) -> None:
    response = web.post(CHAT, json={"model": model, "messages": [{"role": "user", "content": CAPITAL}]})
    assert response.json()["model"] == "lexora/fixed"


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"functions": [{"name": "f"}]},
        {"response_format": {"type": "json_object"}},
        {"n": 2},
        {"logprobs": True},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": CAPITAL}]},
        {"messages": [{"role": "user", "content": "Hello"}, {"role": "user", "content": CAPITAL}]},
        {"messages": [{"role": "assistant", "content": CAPITAL}]},
        {"messages": [{"role": "user", "content": f"{CAPITAL}そこの人口は？"}]},
    ],
)
def test_what_is_not_asked_plainly_goes_to_a_model(
    door: RunningGateway, upstream: RecordedUpstream, fields: dict[str, Any]
) -> None:
    upstream.play([json_response(completion("from the model"))])
    body = {"model": "m", "messages": [{"role": "user", "content": CAPITAL}], **fields}
    response = httpx2.post(f"{door.url}{CHAT}", json=body)
    assert response.headers["x-lexora-origin"] == "own"
    assert response.json()["choices"][0]["message"]["content"] == "from the model"


@pytest.mark.parametrize("value", ["no-cache", "No-Cache", "max-age=0, no-cache", "no-cache, no-store"])
@pytest.mark.parametrize("stream", [False, True])
def test_no_cache_asks_the_model(web: httpx2.Client, value: str, stream: bool) -> None:
    """There is none behind this gateway, as the answer shows."""
    body = {"model": "chat", "messages": [{"role": "user", "content": CAPITAL}], "stream": stream}
    assert web.post(CHAT, json=body, headers={"cache-control": value}).status_code == 502
    for other in ("no-store", "max-age=0", ""):
        assert web.post(CHAT, json=body, headers={"cache-control": other}).status_code == 200


def test_a_prepared_answer_is_recorded(site: RunningGateway, web: httpx2.Client) -> None:
    body = {"model": "gpt-4o-mini", "x_user_id": "takahito", "messages": [{"role": "user", "content": CAPITAL}]}
    response = web.post(CHAT, json=body)
    request_id, usage = response.headers["x-request-id"], response.json()["usage"]
    record = site.record_of(request_id)
    assert record["deployment"] == response.headers["x-lexora-deployment"]
    expected = {
        "endpoint": "chat.completions",
        "user_id": "takahito",
        "origin": "fixed",
        "model": "gpt-4o-mini",
        "upstream_model": "lexora/fixed",
        "tokens_in": usage["prompt_tokens"],
        "tokens_out": usage["completion_tokens"],
        "usage_estimated": 1,
        "cost_usd": 0,
        "attempts": 0,
        "outcome": "completed",
        "status": 200,
        "error_code": None,
    }
    assert {name: record[name] for name in expected} == expected
    assert 0 < record["ttft_ms"] <= record["duration_ms"] < 1000
    line = site.log_line_of(request_id)
    assert line["latestUserMessage"] == line["contextTailPreview"] == CAPITAL
    assert (line["message"], line["origin"], line["costUsd"]) == ("chat_completion", "fixed", 0)
