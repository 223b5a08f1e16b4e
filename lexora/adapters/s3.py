"""S3: one object, read again only when it has changed."""

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

_MOST_VERSIONS = 20


class S3Object:
    """An object of a bucket. The client is made by the caller; it has no static type, as boto3 makes it at run time."""

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._etag: str | None = None

    def __str__(self) -> str:
        return f"s3://{self._bucket}/{self._key}"

    def read(self) -> bytes | None:
        """The content if it is another than at the last reading that succeeded, else None. Blocks.

        Raises FileNotFoundError if there is no such object, OSError if S3 fails. Of a missing object S3 says "access
        denied" unless the caller may list the bucket.
        """
        unless = {"IfNoneMatch": self._etag} if self._etag else {}
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._key, **unless)
            content: bytes = found["Body"].read()
        except ClientError as error:
            if _status(error) == 304:
                return None
            if error.response["Error"]["Code"] == "NoSuchKey":
                self._etag = None
                raise FileNotFoundError(f"{self}: there is no such object") from None
            raise OSError(f"{self}: {error}") from None
        except BotoCoreError as error:
            raise OSError(f"{self}: {error}") from None
        self._etag = found["ETag"]
        return content

    def earlier(self) -> Iterator[bytes]:
        """The contents that it had before, newest first, where the bucket keeps versions. Raises OSError."""
        try:
            found = self._client.list_object_versions(Bucket=self._bucket, Prefix=self._key, MaxKeys=_MOST_VERSIONS)
            for version in found.get("Versions", ()):
                if version["Key"] == self._key and not version["IsLatest"]:
                    id_ = version["VersionId"]
                    yield self._client.get_object(Bucket=self._bucket, Key=self._key, VersionId=id_)["Body"].read()
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"{self}: {error}") from None

    def put_if_absent(self, data: bytes) -> bool:
        """Writes the object unless there is one. Returns whether it has. Raises OSError."""
        try:
            self._client.put_object(Bucket=self._bucket, Key=self._key, Body=data, IfNoneMatch="*")
        except ClientError as error:
            if _status(error) == 412:
                return False
            raise OSError(f"{self}: {error}") from None
        except BotoCoreError as error:
            raise OSError(f"{self}: {error}") from None
        return True


def _status(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
