"""LangChain's ChatOpenAI: ask_langchain.py BASE_URL chat|responses. As in tests/node/questions.mjs, a line each."""

import json
import sys
from typing import Any, Literal

import openai
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

BASE_URL, API = sys.argv[1:]


class Sky(BaseModel):
    sky: Literal["clear", "grey"]


@tool
def get_weather(city: str) -> str:
    """Weather"""
    return "7 °C"


def plain(chat: ChatOpenAI) -> dict[str, Any]:
    return _facts(chat.invoke("Hello"))


def streamed(chat: ChatOpenAI) -> dict[str, Any]:
    chunks = list(chat.stream("Hello"))
    return {**_facts(_sum(chunks)), "pieces": len([chunk for chunk in chunks if chunk.text])}


def tools(chat: ChatOpenAI, *, stream: bool = False) -> dict[str, Any]:
    model = chat.bind_tools([get_weather])
    messages: list[BaseMessage] = [HumanMessage("Hello")]
    asking = _ask(model, messages, stream)
    results = [ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]) for call in asking.tool_calls]
    said = _ask(model, [*messages, asking, *results], stream)
    return {"text": said.text, "cities": [call["args"]["city"] for call in asking.tool_calls]}


def streamed_tools(chat: ChatOpenAI) -> dict[str, Any]:
    return tools(chat, stream=True)


def structured(chat: ChatOpenAI) -> dict[str, Any]:
    found = chat.with_structured_output(Sky, method="json_schema").invoke("Hello")
    assert isinstance(found, Sky)
    return {"value": found.model_dump()}


def _ask(model: Runnable[Any, AIMessage], messages: list[BaseMessage], stream: bool) -> AIMessage:
    return _sum(list(model.stream(messages))) if stream else model.invoke(messages)  # type: ignore[arg-type]


def _sum(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    first, *rest = chunks
    return first.__add__(rest)  # type: ignore[return-value]


def _facts(message: AIMessage) -> dict[str, Any]:
    usage = message.usage_metadata
    assert usage is not None
    return {"text": message.text, "usage": [usage["input_tokens"], usage["output_tokens"]]}


SCENES = {scene.__name__: scene for scene in (plain, streamed, tools, streamed_tools, structured)}


def answer(key: str, model: str, what: str) -> dict[str, Any]:
    chat = ChatOpenAI(
        base_url=BASE_URL,
        api_key=SecretStr(key),
        model=model,
        max_retries=0,
        stream_usage=True,
        use_responses_api=API == "responses",
    )
    try:
        return SCENES[what](chat)
    except openai.APIError as error:
        status = getattr(error, "status_code", None)
        return {"error": type(error).__name__, "status": status, "code": error.code, "message": str(error)}


for line in sys.stdin:
    print(json.dumps(answer(**json.loads(line))), flush=True)
