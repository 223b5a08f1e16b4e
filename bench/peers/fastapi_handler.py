"""A peer of lambdas/chat/handler.py: the prepared answers behind FastAPI, Mangum and boto3, as they are often written.

It does less than ours: it writes no record, no log and no metrics, knows a prompt by one wording, and streams nothing.
"""

import os
import random
import time
import uuid
from typing import Any

import boto3
from fastapi import FastAPI, HTTPException
from mangum import Mangum
from pydantic import BaseModel

_VARIANTS = 5

app = FastAPI()
dynamodb = boto3.client("dynamodb")


class Message(BaseModel):
    role: str
    content: str


class ChatRequest(BaseModel):
    messages: list[Message]
    model: str | None = None


@app.post("/v1/chat/completions")
def chat(request: ChatRequest) -> dict[str, Any]:
    """One variant by chance, in OpenAI's form."""
    key = {"prompt": {"S": request.messages[-1].content}, "variant": {"N": str(random.randrange(_VARIANTS))}}
    found = dynamodb.get_item(TableName=os.environ["ANSWERS_TABLE"], Key=key)
    if "Item" not in found:
        raise HTTPException(404, "no such prompt")
    message = {"role": "assistant", "content": found["Item"]["response"]["S"]}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "peer",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }


handler = Mangum(app, lifespan="off", api_gateway_base_path="/bench")
