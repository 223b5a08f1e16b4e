"""S3: an object that is read again only when it has changed."""

from collections.abc import Callable
from typing import Any

import pytest

from lexora.adapters.s3 import S3Object
from tests.support.emulator import Emulator

KEY = "config/model_map.json"


@pytest.fixture
def bucket(emulator: Emulator) -> str:
    return emulator.bucket()


@pytest.fixture
def subject(emulator: Emulator, bucket: str) -> S3Object:
    return S3Object(emulator.client("s3"), bucket, KEY)


@pytest.fixture
def put(emulator: Emulator, bucket: str) -> Callable[[bytes], None]:
    """Puts another content, as an operator does."""
    return lambda content: emulator.client("s3").put_object(Bucket=bucket, Key=KEY, Body=content)


@pytest.mark.parametrize("content", [b"", b"{}", "日本\x00🗻".encode(), b"x" * 3_000_000])
def test_the_content_comes_as_it_is(subject: S3Object, put: Callable[[bytes], None], content: bytes) -> None:
    put(content)
    assert subject.read() == content


def test_it_is_read_again_only_when_it_has_changed(subject: S3Object, put: Callable[[bytes], None]) -> None:
    put(b"one")
    assert [subject.read(), subject.read(), subject.read()] == [b"one", None, None]
    put(b"two")
    assert [subject.read(), subject.read()] == [b"two", None]
    put(b"two")  # the same bytes again are no change
    assert subject.read() is None
    put(b"one")
    assert [subject.read(), subject.read()] == [b"one", None]


def test_each_reader_remembers_for_itself(
    emulator: Emulator, bucket: str, subject: S3Object, put: Callable[[bytes], None]
) -> None:
    put(b"one")
    assert subject.read() == S3Object(emulator.client("s3"), bucket, KEY).read() == b"one"


def test_an_object_that_is_not_there_is_named(bucket: str, subject: S3Object) -> None:
    with pytest.raises(FileNotFoundError, match=f"^s3://{bucket}/{KEY}: there is no such object$"):
        subject.read()


def test_an_object_that_is_gone_and_comes_back_is_read(
    emulator: Emulator, bucket: str, subject: S3Object, put: Callable[[bytes], None]
) -> None:
    put(b"one")
    assert subject.read() == b"one"
    emulator.client("s3").delete_object(Bucket=bucket, Key=KEY)
    with pytest.raises(FileNotFoundError):
        subject.read()
    put(b"one")
    assert subject.read() == b"one"


def test_it_is_put_if_it_is_absent(emulator: Emulator, bucket: str, subject: S3Object) -> None:
    assert subject.put_if_absent(b"first")
    assert not subject.put_if_absent(b"second")
    assert emulator.client("s3").get_object(Bucket=bucket, Key=KEY)["Body"].read() == b"first"


def test_what_was_put_is_read_like_anything_else(subject: S3Object) -> None:
    subject.put_if_absent(b"first")
    assert subject.read() == b"first"


OPERATIONS: dict[str, Callable[[S3Object], Any]] = {
    "read": lambda subject: subject.read(),
    "put": lambda subject: subject.put_if_absent(b""),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_bucket_that_is_not_there_is_an_error(emulator: Emulator, operation: str) -> None:
    with pytest.raises(OSError, match=r"^s3://nowhere/a: .*NoSuchBucket") as caught:
        OPERATIONS[operation](S3Object(emulator.client("s3"), "nowhere", "a"))
    assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_service_that_cannot_be_reached_is_an_error(unreachable: Callable[[str], Any], operation: str) -> None:
    with pytest.raises(OSError, match=r"^s3://bucket/a: Could not connect"):
        OPERATIONS[operation](S3Object(unreachable("s3"), "bucket", "a"))


def test_a_reading_that_failed_is_made_again(
    emulator: Emulator, bucket: str, subject: S3Object, put: Callable[[bytes], None]
) -> None:
    """What broke off has not been read, so it is no reason to say that nothing has changed."""
    put(b"x" * 1000)
    broken = Broken(emulator.client("s3"))
    reader = S3Object(broken, bucket, KEY)
    with pytest.raises(OSError, match=f"^s3://{bucket}/{KEY}: "):
        reader.read()
    broken.whole = True
    assert reader.read() == b"x" * 1000


class Broken:
    """A client whose responses break off, until they are `whole`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.whole = False

    def get_object(self, **asked: Any) -> Any:
        found = self._client.get_object(**asked)
        if not self.whole:
            found["Body"]._content_length = "2000"
        return found
