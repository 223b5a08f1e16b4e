"""DynamoDB: the counters of the limits.

An item for each subject and window, changed by conditional updates one after the other; what an earlier one has added
is given back when a later one refuses. Transactions would do it in one call, but they cost twice as much, and under
load they conflict with each other on the items that all requests share. The calls block, as in `dynamodb`.
"""

from collections.abc import Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError

from lexora.core.ports import Claim, NotSettled

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

    def reserve(self, claims: Sequence[Claim]) -> tuple[Claim | None, list[int]]:
        """Adds every claim's amount, or none of them; see the port. Raises OSError.

        If even giving back fails, too much is counted until the window ends, never too little.
        """
        used = [0] * len(claims)
        for claim in claims:  # no counter has room for these
            if claim.limit is not None and claim.amount > claim.limit:
                return claim, used
        added: list[list[Claim]] = []
        for group in _groups(claims):
            try:
                counts = self._add(group, [claim.amount for claim in group], within_limits=True)
            except ClientError as error:
                self._give_back(added)
                if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                    raise OSError(f"table {self._table}: {error}") from None
                counts = error.response.get("Item", {})
                refused = _refused(group, counts)
                return refused, [_count(counts, claim) if claim is refused else 0 for claim in claims]
            except BotoCoreError as error:
                self._give_back(added)
                raise OSError(f"table {self._table}: {error}") from None
            added.append(group)
            for place, claim in enumerate(claims):
                if claim in group:
                    used[place] = _count(counts, claim)
        return None, used

    def settle(self, claims: Sequence[Claim], amounts: Sequence[int]) -> None:
        """Counts `amounts` in the place of what was reserved, in a call an item. Raises NotSettled.

        Where an answer is lost, what would be taken off is not tried again: too much may be counted, never too little.
        """
        changes = {claim: amount - claim.amount for claim, amount in zip(claims, amounts, strict=True)}
        left: list[tuple[Claim, int]] = []
        problem: Exception | None = None
        for group in _groups([claim for claim, change in changes.items() if change]):
            try:
                self._add(group, [changes[claim] for claim in group])
            except (BotoCoreError, ClientError) as error:
                problem = error
                sure = isinstance(error, _NOTHING_SENT)
                left += [(claim, claim.amount + changes[claim]) for claim in group if sure or changes[claim] > 0]
        if problem is not None:
            raise NotSettled(f"table {self._table}: {problem}", left)

    def _give_back(self, added: list[list[Claim]]) -> None:
        for group in added:
            try:
                self._add(group, [-claim.amount for claim in group])
            except (BotoCoreError, ClientError):
                continue

    def _add(self, group: list[Claim], amounts: list[int], *, within_limits: bool = False) -> dict[str, Any]:
        """Adds to the counters of one item. Returns the item."""
        names = {"#expires_at": "expires_at"}
        values = {":expires_at": {"N": str(int(group[0].ends_at) + _DAY_SECONDS)}}
        adds, conditions = [], []
        for claim, amount in zip(group, amounts, strict=True):
            measure = claim.measure
            names[f"#{measure}"] = measure
            values[f":{measure}"] = {"N": str(amount)}
            adds.append(f"#{measure} :{measure}")
            if within_limits and claim.limit is not None:
                values[f":{measure}_room"] = {"N": str(claim.limit - amount)}
                conditions.append(f"(attribute_not_exists(#{measure}) OR #{measure} <= :{measure}_room)")
        only_if = {"ConditionExpression": " AND ".join(conditions)} if conditions else {}
        answer = self._client.update_item(
            TableName=self._table,
            Key={"pk": {"S": f"limit#{group[0].subject}"}, "sk": {"S": group[0].window}},
            UpdateExpression=f"SET #expires_at = :expires_at ADD {', '.join(adds)}",
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
            **only_if,
        )
        found: dict[str, Any] = answer["Attributes"]
        return found


def _groups(claims: Sequence[Claim]) -> list[list[Claim]]:
    """The claims by item."""
    groups: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims:
        groups.setdefault((claim.subject, claim.window), []).append(claim)
    return list(groups.values())


def _count(item: dict[str, Any], claim: Claim) -> int:
    return int(item.get(claim.measure, {"N": "0"})["N"])


def _refused(group: list[Claim], counts: dict[str, Any]) -> Claim:
    for claim in group:
        if claim.limit is not None and _count(counts, claim) + claim.amount > claim.limit:
            return claim
    return group[0]  # the table did not say what it counts
