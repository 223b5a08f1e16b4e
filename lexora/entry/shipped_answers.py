"""What a deployment does about the prepared answers: it publishes its own, unless an operator has put others there."""

import logging
import os

import boto3

from lexora.adapters.cloudfront import CloudFrontSite
from lexora.adapters.dynamodb_versions import DynamoVersions
from lexora.core.versions import Version
from lexora.entry.prepared import SHIPPED, load_prepared
from lexora.entry.publishing import plan, put_in_force

# Who has published what a deploy brought. No name of a user at AWS is like that.
DEPLOY = "deploy"

log = logging.getLogger("lexora")


def publish() -> None:
    """Puts the shipped answers in force where those of an earlier deploy are, or none.

    What an operator has published, or gone back to, stays in force; it is only put there again, as this release may
    serve it in another way. Raises ConfigError, OSError, and KeyError for an environment variable that is not set.
    """
    environ = os.environ
    s3 = boto3.client("s3")
    store = DynamoVersions(
        boto3.client("dynamodb"), s3, environ["ANSWERS_TABLE"], environ["LIMITS_TABLE"], environ["CONFIG_BUCKET"]
    )
    site = CloudFrontSite(
        s3, boto3.client("cloudfront"), environ["SITE_BUCKET"], environ["EDGE_FUNCTION"], environ["DISTRIBUTION"]
    )
    wanted = _of_an_operator(store) or Version.of(*load_prepared(SHIPPED))
    put_in_force(store, site, plan(store, wanted, DEPLOY, "shipped with this release"), log.info)


def _of_an_operator(store: DynamoVersions) -> Version | None:
    """The version in force, if it is no deploy's or an operator has gone back to it."""
    state = store.in_force()
    current = store.get(state.version) if state.version else None
    if current is None or current.by != DEPLOY:
        return current
    newest = next(id_ for id_ in store.ids() if (version := store.get(id_)) and version.by == DEPLOY)
    return None if current.id == newest else current
