"""DynamoDB: the counters of the limits.

An item for each subject and window, changed by conditional updates one after the other; what an earlier one has added
is given back when a later one refuses. Transactions would do it in one call, but they cost twice as much, and under
load they conflict with each other on the items that all requests share. The calls block, as in `dynamodb`.
"""

from collections.abc import Sequence
from operator import add, neg
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError
from msgspec.structs import astuple

from lexora.core.ports import Amounts, Claim, NotSettled

_NOTHING = Amounts()
_DAY_SECONDS = 86_400
# After these, nothing has reached the table; after another error of the connection it may have.
_NOTHING_SENT = (ClientError, EndpointConnectionError, ConnectTimeoutError)


class DynamoLimits:
    """The port `LimitStore` over a table with the keys `pk` (S) and `sk` (S), and `expires_at` for its TTL.

    `client` should try once: an update whose answer is lost may have been made, and would count twice.
    """

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def reserve(self, claims: Sequence[Claim]) -> tuple[Claim | None, list[Amounts]]:
        """Adds every claim, or none of them; see the port. Raises OSError.

        If even giving back fails, too much is counted until the window ends, never too little.
        """
        for claim in claims:  # no counter has room for these
            if claim.added_to(_NOTHING) is None:
                return claim, [_NOTHING] * len(claims)
        used: list[Amounts] = []
        for claim in claims:
            try:
                used.append(self._add(claim, _held(claim), within_limits=True))
            except ClientError as error:
                self._give_back(claims[: len(used)])
                if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                    raise OSError(f"table {self._table}: {error}") from None
                before = _amounts(error.response.get("Item", {}))
                return claim, [before if other is claim else _NOTHING for other in claims]
            except BotoCoreError as error:
                self._give_back(claims[: len(used)])
                raise OSError(f"table {self._table}: {error}") from None
        return None, used

    def settle(self, claims: Sequence[Claim], amounts: Sequence[Amounts]) -> None:
        """Counts these in the place of what was reserved, in a call an item. Raises NotSettled.

        Where an answer is lost, what would be taken off is not tried again: too much may be counted, never too little.
        """
        left: list[tuple[Claim, Amounts]] = []
        problem: Exception | None = None
        for claim, amount in zip(claims, amounts, strict=True):
            change = _plus(amount, _negative(_held(claim)))
            if change == _NOTHING:
                continue
            try:
                self._add(claim, change)
            except (BotoCoreError, ClientError) as error:
                problem = error
                if not isinstance(error, _NOTHING_SENT):
                    change = Amounts(*(max(0, each) for each in astuple(change)))
                if change != _NOTHING:
                    left.append((claim, _plus(_held(claim), change)))
        if problem is not None:
            raise NotSettled(f"table {self._table}: {problem}", left)

    def _give_back(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            try:
                self._add(claim, _negative(_held(claim)))
            except (BotoCoreError, ClientError):
                continue

    def _add(self, claim: Claim, change: Amounts, *, within_limits: bool = False) -> Amounts:
        """Changes the counters of a claim's item. Returns what they are then."""
        names = {"#expires_at": "expires_at"}
        values = {":expires_at": {"N": str(int(claim.ends_at) + _DAY_SECONDS)}}
        adds, conditions = [], []
        for measure in Amounts.__struct_fields__:
            amount = getattr(change, measure)
            most = getattr(claim, f"most_{measure}") if within_limits else None
            if not amount and most is None:
                continue
            names[f"#{measure}"] = measure
            values[f":{measure}"] = {"N": str(amount)}
            adds.append(f"#{measure} :{measure}")
            if most is not None:
                values[f":{measure}_room"] = {"N": str(most - amount)}
                conditions.append(f"(attribute_not_exists(#{measure}) OR #{measure} <= :{measure}_room)")
        only_if = {"ConditionExpression": " AND ".join(conditions)} if conditions else {}
        and_add = f" ADD {', '.join(adds)}" if adds else ""
        answer = self._client.update_item(
            TableName=self._table,
            Key={"pk": {"S": f"limit#{claim.subject}"}, "sk": {"S": claim.window}},
            UpdateExpression=f"SET #expires_at = :expires_at{and_add}",
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
            **only_if,
        )
        return _amounts(answer["Attributes"])


def _held(claim: Claim) -> Amounts:
    return Amounts(claim.requests, claim.tokens, claim.nanodollars)


def _plus(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(*map(add, astuple(one), astuple(other)))


def _negative(amounts: Amounts) -> Amounts:
    return Amounts(*map(neg, astuple(amounts)))


def _amounts(item: dict[str, Any]) -> Amounts:
    return Amounts(*(int(item.get(measure, {"N": "0"})["N"]) for measure in Amounts.__struct_fields__))
