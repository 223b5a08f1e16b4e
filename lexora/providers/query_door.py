"""The door for clients of /api/v1/llm/query: one prompt in, one text out, errors as `{"detail": …}`."""

from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

from lexora.core.chat import ChatRequest, parse_chat_request
from lexora.core.errors import InvalidRequest, LexoraError, UpstreamBroken
from lexora.providers.chat_door import ChatDoor
from lexora.providers.dialect import NOT_JSON


class LLMQuery(BaseModel):
    """What is asked of a model."""

    model: str
    prompt: str
    max_tokens: int = 100


class LLMResponse(BaseModel):
    """What it has answered, and the tokens that it took."""

    model: str
    text: str
    usage: dict[str, Any]


class ValidationProblem(BaseModel):
    """What is wrong with a field: `loc` says where it is."""

    type: str
    loc: list[str | int]
    msg: str
    input: Any = None


class QueryError(BaseModel):
    """Every error has this form; with status 422, `detail` is a list of what is wrong."""

    detail: str | list[ValidationProblem]


class InvalidQuery(InvalidRequest):
    """`problems` are all that is wrong, as FastAPI lists them."""

    status = 422
    default_code = "validation_error"

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in problems))
        self.problems = problems


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: dict[str, Any] | None = None


# Of what was sent, with an error: bytes.
_MOST_SHOWN = 10_000

_decode_completion = msgspec.json.Decoder(_Completion).decode


class QueryDoor(ChatDoor):
    """A chat of one message. Fields beyond those of `LLMQuery` are the gateway's own (`x_*`) or pass for nothing."""

    def request(self, body: bytes) -> ChatRequest:
        try:
            sent = msgspec.json.decode(body)
            query = LLMQuery.model_validate(sent)
        except NOT_JSON as error:
            problem = {"type": "json_invalid", "loc": ["body"], "msg": f"JSON decode error: {error}", "input": {}}
            raise InvalidQuery([problem]) from None
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=len(body) <= _MOST_SHOWN)
            raise InvalidQuery([{**each, "loc": ["body", *each["loc"]]} for each in problems]) from None
        own = {name: value for name, value in sent.items() if name.startswith("x_")}
        message = {"role": "user", "content": query.prompt}
        chat = {"model": query.model, "messages": [message], "max_completion_tokens": query.max_tokens}
        return parse_chat_request(msgspec.json.encode({**chat, **own}))

    def completion(self, request: ChatRequest, body: bytes, record_id: str) -> bytes:  # noqa: ARG002 - a header says it
        try:
            answer = _decode_completion(body)
            message = answer.choices[0].message
        except (*NOT_JSON, IndexError):
            raise UpstreamBroken("The upstream's answer holds no text.") from None
        text = message.content or message.refusal or ""
        response = LLMResponse(model=request.known.model or "", text=text, usage=answer.usage or {})
        return response.model_dump_json().encode()

    def error(self, error: LexoraError, record_id: str | None = None) -> tuple[int, bytes]:  # noqa: ARG002 - as above
        detail = error.problems if isinstance(error, InvalidQuery) else error.message
        return error.status, msgspec.json.encode({"detail": detail})
