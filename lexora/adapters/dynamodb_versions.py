"""DynamoDB and S3: the versions of the prepared answers, and which of them is in force.

A version is an object in a bucket. What is in force is one item, with the catalogue in it: functions read it together
with what they need anyway, and it changes in the same transaction as the answers.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from lexora.core.ports import InForce, Overtaken
from lexora.core.versions import Version

_FOLDER = "answers/versions/"
_PLACE = {"pk": {"S": "answers"}, "sk": {"S": "in force"}}
# DynamoDB's own limits of a transaction, with room for the condition and for the keys' names.
_MOST_WRITES = 99
_MOST_BYTES = 3_000_000

_Write = dict[str, dict[str, Any]]
_Key = tuple[str, int]
_Texts = list[tuple[_Key, str | None]]  # None: deleted


class PublishedCatalogue:
    """The catalogue in force, for those who serve it."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def read(self) -> bytes | None:
        """The content of `catalogue.json`, None where nothing was ever published. Raises OSError."""
        try:
            found = self._client.get_item(
                TableName=self._table, Key=_PLACE, ConsistentRead=True, ProjectionExpression="catalogue"
            )
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"table {self._table}: {error}") from None
        text = found.get("Item", {}).get("catalogue", {}).get("S")
        return None if text is None else text.encode()


class DynamoVersions:
    """The port `VersionStore`: `bucket` keeps versions; `state_table` (`pk`, `sk`) knows which is in force.

    `switch` makes `answers_table` (`prompt`, `variant`) hold just that version's answers. Up to 99 differences are one
    transaction with the switch itself. If there are more, those of a prompt stay together; what is new comes before
    the switch and what goes after it, so that the catalogue never names what is not there.
    """

    def __init__(self, dynamodb: Any, s3: Any, answers_table: str, state_table: str, bucket: str) -> None:
        self._dynamodb = dynamodb
        self._s3 = s3
        self._answers_table = answers_table
        self._state_table = state_table
        self._bucket = bucket

    def add(self, version: Version) -> None:
        body, place = msgspec.json.encode(version), {"Bucket": self._bucket, "Key": _key(version.id)}
        try:
            self._s3.put_object(**place, Body=body, ContentType="application/json", IfNoneMatch="*")
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "PreconditionFailed":
                return
            raise OSError(f"s3://{self._bucket}/{_key(version.id)}: {error}") from None

    def get(self, version_id: str) -> Version | None:
        try:
            body = self._s3.get_object(Bucket=self._bucket, Key=_key(version_id))["Body"].read()
            return msgspec.json.decode(body, type=Version)
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return None
            raise OSError(f"s3://{self._bucket}/{_key(version_id)}: {error}") from None
        except (BotoCoreError, msgspec.DecodeError) as error:
            raise OSError(f"s3://{self._bucket}/{_key(version_id)}: {error}") from None

    def ids(self) -> list[str]:
        try:
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=_FOLDER)
            keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"s3://{self._bucket}/{_FOLDER}: {error}") from None
        return sorted((key.removeprefix(_FOLDER).removesuffix(".json") for key in keys), reverse=True)

    def in_force(self) -> InForce:
        try:
            found = self._dynamodb.get_item(TableName=self._state_table, Key=_PLACE, ConsistentRead=True)
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"table {self._state_table}: {error}") from None
        return msgspec.json.decode(found["Item"]["state"]["S"], type=InForce) if "Item" in found else InForce()

    def begin(self, version_id: str, now: float, as_seen: InForce) -> InForce | None:
        begun = as_seen.beginning(version_id, now)
        try:
            self._transact([self._change(as_seen, begun)])
        except Overtaken:
            return None
        return begun

    def switch(self, version: Version, as_seen: InForce) -> InForce:
        switched = as_seen._replace(version=version.id)
        change = self._change(as_seen, switched, version.catalogue())
        there, wanted = self._answers(), version.items()
        puts: _Texts = [(key, text) for key, text in sorted(wanted.items()) if there.get(key) != text]
        gone: _Texts = [(key, None) for key in sorted(there.keys() - wanted.keys())]
        together = list(self._groups([*puts, *gone], whole=True))
        if len(together) <= 1:
            self._transact([change, *(together[0] if together else ())])
            return switched
        for group in self._groups(puts):
            self._transact([self._only_if(as_seen), *group])
        self._transact([change])
        for group in self._groups(gone):
            self._transact([self._only_if(switched), *group])
        return switched

    def finish(self, as_seen: InForce) -> InForce:
        finished = InForce(as_seen.version)
        self._transact([self._change(as_seen, finished)])
        return finished

    def _answers(self) -> dict[_Key, str]:
        table = self._answers_table
        try:
            pages = self._dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
            items = [item for page in pages for item in page["Items"]]
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"table {table}: {error}") from None
        return {(item["prompt"]["S"], int(item["variant"]["N"])): item["response"]["S"] for item in items}

    def _groups(self, writes: _Texts, *, whole: bool = False) -> Iterator[list[_Write]]:
        """Writes for one transaction each; `whole` in as few as it takes, else no prompt is in two if it fits one."""
        group: list[_Write] = []
        size = 0
        prompts = [writes] if whole else [list(of_one) for _, of_one in groupby(writes, lambda write: write[0][0])]
        for of_one in prompts:
            if group and len(group) + len(of_one) > _MOST_WRITES:
                yield group
                group, size = [], 0
            for key, text in of_one:
                bytes_ = len(key[0].encode()) + len((text or "").encode())
                if group and (len(group) == _MOST_WRITES or size + bytes_ > _MOST_BYTES):
                    yield group
                    group, size = [], 0
                group.append(self._write(key, text))
                size += bytes_
        if group:
            yield group

    def _write(self, key: _Key, text: str | None) -> _Write:
        place = {"prompt": {"S": key[0]}, "variant": {"N": str(key[1])}}
        if text is None:
            return {"Delete": {"TableName": self._answers_table, "Key": place}}
        return {"Put": {"TableName": self._answers_table, "Item": {**place, "response": {"S": text}}}}

    def _change(self, before: InForce, after: InForce, catalogue: bytes | None = None) -> _Write:
        values = {":after": {"S": _text(after)}}
        setting = "SET #state = :after"
        if catalogue is not None:
            setting += ", catalogue = :catalogue"
            values[":catalogue"] = {"S": catalogue.decode()}
        condition = self._condition(before)
        condition["ExpressionAttributeValues"] = {**condition.get("ExpressionAttributeValues", {}), **values}
        return {"Update": {**condition, "UpdateExpression": setting, "ExpressionAttributeNames": {"#state": "state"}}}

    def _only_if(self, state: InForce) -> _Write:
        return {"ConditionCheck": {**self._condition(state), "ExpressionAttributeNames": {"#state": "state"}}}

    def _condition(self, state: InForce) -> dict[str, Any]:
        place = {"TableName": self._state_table, "Key": _PLACE}
        if state == InForce():
            return {**place, "ConditionExpression": "attribute_not_exists(#state)"}
        values = {":before": {"S": _text(state)}}
        return {**place, "ConditionExpression": "#state = :before", "ExpressionAttributeValues": values}

    def _transact(self, writes: Iterable[_Write]) -> None:
        try:
            self._dynamodb.transact_write_items(TransactItems=list(writes))
        except ClientError as error:
            reasons = error.response.get("CancellationReasons", ())
            if any(reason.get("Code") == "ConditionalCheckFailed" for reason in reasons):
                raise Overtaken from None
            raise OSError(f"table {self._answers_table}: {error}") from None
        except BotoCoreError as error:
            raise OSError(f"table {self._answers_table}: {error}") from None


def _key(version_id: str) -> str:
    return f"{_FOLDER}{version_id}.json"


def _text(state: InForce) -> str:
    return msgspec.json.encode(state).decode()
