"""The custom resource that CloudFormation asks to publish the repository's prepared answers."""

from typing import Any

from lexora.entry.custom_resource import answer


def handler(event: dict[str, Any], _context: object) -> None:
    """Raises OSError if CloudFormation cannot be told how it went: Lambda then tries the whole again."""
    answer(event, _work)


def _work() -> None:
    # Imported here so that CloudFormation hears of a broken import too, rather than wait for an hour.
    from lexora.entry.shipped_answers import publish

    publish()
