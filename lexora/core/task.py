"""What a request asks a model for, besides chat: each is an endpoint of OpenAI's API, or of servers that speak it."""

from typing import NamedTuple


class Task(NamedTuple):
    """`endpoint` is its name in records, `path` where it is below a base URL.

    `answer` are the fields one of which every answer has. `longest` is how many tokens an answer may have as long as
    nothing is known of any, 0 where answers have none at all. `form` says that requests are multipart forms.
    """

    endpoint: str
    path: str
    answer: tuple[str, ...]
    longest: int = 0
    form: bool = False


CHAT = Task("chat.completions", "/chat/completions", ("choices",), 4096)
COMPLETIONS = Task("completions", "/completions", ("choices",), 4096)
EMBEDDINGS = Task("embeddings", "/embeddings", ("data",))
RERANK = Task("rerank", "/rerank", ("results", "data"))
TRANSCRIPTIONS = Task("audio.transcriptions", "/audio/transcriptions", ("text",), 4096, form=True)
IMAGES = Task("images.generations", "/images/generations", ("data",), 8192)
