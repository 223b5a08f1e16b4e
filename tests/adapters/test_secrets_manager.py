"""Secrets Manager: what is remembered and for how long, and secrets that are not there."""

from collections.abc import Callable
from typing import Any

import pytest

from lexora.adapters.secrets_manager import SecretsManager
from tests.support.emulator import Emulator


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Counting:
    """A client that counts the readings."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.readings = 0

    def get_secret_value(self, **asked: Any) -> Any:
        self.readings += 1
        return self._client.get_secret_value(**asked)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def prefix(emulator: Emulator) -> str:
    return f"/{emulator.name('secrets')}/dev/"


@pytest.fixture
def client(emulator: Emulator) -> Counting:
    return Counting(emulator.client("secretsmanager"))


@pytest.fixture
def subject(client: Counting, prefix: str, clock: Clock) -> SecretsManager:
    return SecretsManager(client, prefix, clock)


@pytest.fixture
def put(emulator: Emulator, prefix: str) -> Callable[[str, str], None]:
    """Creates a secret, or gives it another value."""
    manager = emulator.client("secretsmanager")

    def put(name: str, value: str) -> None:
        try:
            manager.create_secret(Name=prefix + name, SecretString=value)
        except manager.exceptions.ResourceExistsException:
            manager.put_secret_value(SecretId=prefix + name, SecretString=value)

    return put


def test_a_secret_is_found_under_the_prefix(subject: SecretsManager, put: Callable[[str, str], None]) -> None:
    put("OPENAI_API_KEY", "sk-1")
    put("OTHER", "sk-2")
    assert (subject.get("OPENAI_API_KEY"), subject.get("OTHER")) == ("sk-1", "sk-2")


def test_a_line_end_that_was_stored_along_is_not_part_of_it(
    subject: SecretsManager, put: Callable[[str, str], None]
) -> None:
    put("KEY", "sk-1\n")
    assert subject.get("KEY") == "sk-1"


def test_it_is_read_once(
    subject: SecretsManager, put: Callable[[str, str], None], client: Counting, clock: Clock
) -> None:
    put("KEY", "sk-1")
    assert subject.get("KEY") == "sk-1"
    put("KEY", "sk-2")
    clock.now += 1e6
    assert subject.get("KEY") == "sk-1"
    assert client.readings == 1


def test_nothing_is_read_before_it_is_asked_for(subject: SecretsManager, client: Counting) -> None:
    assert client.readings == 0


def test_a_fresh_one_is_read_but_not_again_within_30_seconds(
    subject: SecretsManager, put: Callable[[str, str], None], client: Counting, clock: Clock
) -> None:
    put("KEY", "sk-1")
    subject.get("KEY")
    put("KEY", "sk-2")
    clock.now += 29.9
    assert subject.get("KEY", fresh=True) == "sk-1"
    clock.now += 0.2
    assert subject.get("KEY", fresh=True) == "sk-2"
    assert subject.get("KEY") == "sk-2"
    put("KEY", "sk-3")
    clock.now += 29.9
    assert subject.get("KEY", fresh=True) == "sk-2"
    assert client.readings == 2


def test_a_fresh_one_may_be_the_first(subject: SecretsManager, put: Callable[[str, str], None]) -> None:
    put("KEY", "sk-1")
    assert subject.get("KEY", fresh=True) == "sk-1"


@pytest.mark.parametrize("value", [None, " \n"], ids=["not there", "blank"])
def test_one_that_is_missing_is_looked_for_again_after_30_seconds(
    subject: SecretsManager, put: Callable[[str, str], None], client: Counting, clock: Clock, value: str | None
) -> None:
    if value is not None:
        put("KEY", value)
    assert subject.get("KEY") is None
    put("KEY", "sk-1")
    clock.now += 29.9
    assert subject.get("KEY") is None
    assert client.readings == 1
    clock.now += 0.2
    assert subject.get("KEY") == "sk-1"


def test_one_that_was_created_without_a_value_is_missing(
    emulator: Emulator, subject: SecretsManager, prefix: str
) -> None:
    emulator.client("secretsmanager").create_secret(Name=f"{prefix}KEY")
    assert subject.get("KEY") is None


def test_one_that_is_taken_away_is_missing_once_it_is_asked_for_freshly(
    emulator: Emulator, subject: SecretsManager, put: Callable[[str, str], None], prefix: str, clock: Clock
) -> None:
    put("KEY", "sk-1")
    assert subject.get("KEY") == "sk-1"
    emulator.client("secretsmanager").delete_secret(SecretId=f"{prefix}KEY", ForceDeleteWithoutRecovery=True)
    clock.now += 31
    assert subject.get("KEY") == "sk-1"
    assert subject.get("KEY", fresh=True) is None


def test_a_service_that_cannot_be_reached_is_an_error(unreachable: Callable[[str], Any]) -> None:
    with pytest.raises(OSError, match=r"^secret /p/KEY: Could not connect"):
        SecretsManager(unreachable("secretsmanager"), "/p/").get("KEY")


def test_a_refusal_is_an_error_and_is_not_remembered(
    emulator: Emulator, subject: SecretsManager, put: Callable[[str, str], None], prefix: str
) -> None:
    put("KEY", "sk-1")
    manager = emulator.client("secretsmanager")
    manager.delete_secret(SecretId=f"{prefix}KEY")  # is deleted in a week, and cannot be read until then
    with pytest.raises(OSError, match=rf"^secret {prefix}KEY: .*InvalidRequestException"):
        subject.get("KEY")
    manager.restore_secret(SecretId=f"{prefix}KEY")
    assert subject.get("KEY") == "sk-1"


def test_an_error_does_not_take_the_value_away(
    emulator: Emulator, subject: SecretsManager, put: Callable[[str, str], None], prefix: str, clock: Clock
) -> None:
    put("KEY", "sk-1")
    assert subject.get("KEY") == "sk-1"
    emulator.client("secretsmanager").delete_secret(SecretId=f"{prefix}KEY")
    clock.now += 31
    with pytest.raises(OSError, match="InvalidRequestException"):
        subject.get("KEY", fresh=True)
    assert subject.get("KEY") == "sk-1"
