"""The keys of an environment, with the words of `lexora keys`."""

import argparse

from lexora.adapters.dynamodb_keys import DynamoKeys
from lexora.entry.keys import run
from scripts.aws.account import Account


def keys(account: Account, options: argparse.Namespace) -> None:
    """Makes, lists, revokes and replaces the API keys of an environment."""
    table = account.outputs("Data").get("LimitsTableName")
    if table is None:  # deployed before there were keys
        raise account.not_deployed("Data")
    run(options, DynamoKeys(account.client("dynamodb"), table))
