"""OpenAI's messages as Gemini's contents (https://ai.google.dev/api/caching#Content)."""

import mimetypes
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from lexora.core.errors import InvalidRequest
from lexora.providers import chat_fields as openai
from lexora.providers.chat_fields import unsupported

Part = dict[str, Any]

# What stands for the signature of a call that Gemini did not make, or whose client has lost it
# (https://ai.google.dev/gemini-api/docs/thought-signatures): without one, models since Gemini 3 refuse the request.
_UNSIGNED = "skip_thought_signature_validator"

_WHOSE = "Gemini"
_AUDIO = {"mp3": "audio/mpeg"}


def conversation(messages: Sequence[openai.Message], *, must_be_signed: bool) -> dict[str, Any]:
    """Gemini's `contents`, and `systemInstruction` if there is any. Raises InvalidRequest.

    System messages are gathered wherever they stand: Gemini takes one instruction. `must_be_signed` says that the
    model wants every call of a tool back with the signature of the thought behind it.
    """
    system: list[Part] = []
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # of the tools, by the ids of their calls
    results: list[Part] | None = None  # those of the content before, which a tool message adds to
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        if isinstance(message, openai.ToolMessage):
            if results is None:
                results = []
                contents.append({"role": "user", "parts": results})
            results.append(_result(message, names, where))
            continue
        results = None
        match message:
            case openai.SystemMessage(content=content):
                openai.refuse_name(message.name, where, _WHOSE)
                system += _parts(content, where)
            case openai.UserMessage(content=content):
                openai.refuse_name(message.name, where, _WHOSE)
                contents.append({"role": "user", "parts": _parts(content, where) or [{"text": ""}]})
            case openai.AssistantMessage():
                contents.append({"role": "model", "parts": _answer(message, where, must_be_signed=must_be_signed)})
                names |= {call.id: call.function.name for call in message.tool_calls or ()}
            case openai.FunctionMessage():
                raise openai.function_message(where)
    if not contents:
        raise unsupported("messages", "Gemini answers no system message alone. Add a user message.")
    return {"systemInstruction": {"parts": system}, "contents": contents} if system else {"contents": contents}


def _parts(content: str | Sequence[openai.InputPart | openai.RefusalPart], where: str) -> list[Part]:
    """The parts of a message's content. Empty text is left out: it says nothing."""
    if isinstance(content, str):
        return [{"text": content}] if content else []
    parts = [_part(part, f"{where}.content[{position}]") for position, part in enumerate(content)]
    return [part for part in parts if part.get("text") != ""]


def _part(part: openai.InputPart | openai.RefusalPart, where: str) -> Part:
    match part:
        case openai.TextPart(text=text) | openai.RefusalPart(refusal=text):
            return {"text": text}
        case openai.ImagePart(image_url=image):
            return _image(image.url, f"{where}.image_url.url")
        case openai.AudioPart(input_audio=audio):
            media_type = _AUDIO.get(audio.format, f"audio/{audio.format}")
            return {"inlineData": {"mimeType": media_type, "data": audio.data}}
        case openai.FilePart(file=file):
            return _file(file, f"{where}.file.file_data")


def _image(url: str, where: str) -> Part:
    if not url.startswith(("https://", "http://")):
        media_type, data = openai.data_url(url, where)
        return {"inlineData": {"mimeType": "image/jpeg" if media_type == "image/jpg" else media_type, "data": data}}
    media_type = mimetypes.guess_type(urlsplit(url).path)[0] or ""
    # Gemini fetches it, and finds out for itself what it is if its name does not tell.
    return {"fileData": {"fileUri": url, **({"mimeType": media_type} if media_type else {})}}


def _file(file: openai.File, where: str) -> Part:
    media_type, data = openai.file_data(file, where, _WHOSE)
    return {"inlineData": {"mimeType": media_type, "data": data}}


def _answer(message: openai.AssistantMessage, where: str, *, must_be_signed: bool) -> list[Part]:
    content = openai.answer(message, where, _WHOSE)
    calls = [_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls or ())]
    # Of calls made at once, Gemini signs the first.
    if calls and must_be_signed and not any("thoughtSignature" in call for call in calls):
        calls[0]["thoughtSignature"] = _UNSIGNED
    return (_parts(content or "", where) + calls) or [{"text": ""}]


def _call(call: openai.ToolCall, where: str) -> Part:
    function = {"id": call.id, "name": call.function.name, "args": openai.arguments(call, where)}
    google = call.extra_content.get("google") if isinstance(call.extra_content, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return {"functionCall": function, **({"thoughtSignature": signature} if isinstance(signature, str) else {})}


def _result(message: openai.ToolMessage, names: dict[str, str], where: str) -> Part:
    """A tool's result. Its text goes out as it is: Gemini's `output` may be anything."""
    name = names.get(message.tool_call_id)
    if name is None:
        raise InvalidRequest(
            f"'{where}' answers a tool call that no message before it has made. Send the assistant's message with it.",
            param=f"{where}.tool_call_id",
            code="invalid_value",
        )
    parts = _parts(message.content, where)
    media = [part for part in parts if "text" not in part]
    output = "\n".join(part["text"] for part in parts if "text" in part)
    response: Part = {"id": message.tool_call_id, "name": name, "response": {"output": output}}
    return {"functionResponse": {**response, "parts": media} if media else response}
