import hashlib

import pytest

from infra import seed
from tests.infra.synthesis import Environment, text


@pytest.mark.parametrize(
    ("table", "keys", "expires"),
    [
        ("Answers", [("prompt", "HASH", "S"), ("variant", "RANGE", "N")], False),
        ("Requests", [("day", "HASH", "S"), ("request_id", "RANGE", "S")], True),
        ("Limits", [("pk", "HASH", "S"), ("sk", "RANGE", "S")], True),
        ("Cache", [("key", "HASH", "S")], True),
    ],
)
def test_a_table_costs_nothing_while_idle(
    dev: Environment, table: str, keys: list[tuple[str, str, str]], expires: bool
) -> None:
    made = dev.one("Data", "DynamoDB::Table", table)
    types = {attribute["AttributeName"]: attribute["AttributeType"] for attribute in made["AttributeDefinitions"]}
    assert made["BillingMode"] == "PAY_PER_REQUEST"
    assert [(k["AttributeName"], k["KeyType"], types[k["AttributeName"]]) for k in made["KeySchema"]] == keys
    assert made.get("TimeToLiveSpecification") == (
        {"AttributeName": "expires_at", "Enabled": True} if expires else None
    )


def test_responses_have_a_table_where_they_are_stored(dev: Environment, prod: Environment) -> None:
    assert not [id_ for id_ in dev.resources("Data", "DynamoDB::Table") if id_.startswith("Responses")]
    made = prod.one("Data", "DynamoDB::Table", "Responses")
    assert made["BillingMode"] == "PAY_PER_REQUEST"
    assert [key["AttributeName"] for key in made["KeySchema"]] == ["pk", "sk"]
    assert made["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    for function in ("Chat", "Stream"):
        (granted,) = [
            statement
            for statement in prod.statements("Api", f"{function}GatewayRole")
            if "dynamodb:DeleteItem" in statement["Action"]
        ]
        assert sorted(granted["Action"]) == ["dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:Query"]
        assert "Responses" in text(granted["Resource"])


def test_data_is_kept_in_prod_and_goes_with_its_stack_elsewhere(dev: Environment, prod: Environment) -> None:
    kept = {"DynamoDB::Table", "S3::Bucket", "SecretsManager::Secret", "Logs::LogGroup"}
    for environment, policy in ((dev, "Delete"), (prod, "Retain")):
        for stack in ("Data", "Api", "Edge"):
            for id_, resource in environment.templates[stack]["Resources"].items():
                if resource["Type"].removeprefix("AWS::") in kept:
                    assert resource["DeletionPolicy"] == policy, id_
    for environment, wanted in ((dev, False), (prod, True)):
        for table in environment.resources("Data", "DynamoDB::Table").values():
            assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": wanted}
            assert table["DeletionProtectionEnabled"] is wanted
    assert dev.resources("Data", "Custom::S3AutoDeleteObjects")
    assert not prod.resources("Data", "Custom::S3AutoDeleteObjects")


@pytest.mark.parametrize(("stack", "bucket"), [("Data", "Config"), ("Edge", "Site")])
def test_buckets_are_private(dev: Environment, stack: str, bucket: str) -> None:
    made = dev.one(stack, "S3::Bucket", bucket)
    assert set(made["PublicAccessBlockConfiguration"].values()) == {True}
    assert made["BucketEncryption"]
    policy = dev.one(stack, "S3::BucketPolicy", bucket)["PolicyDocument"]["Statement"]
    assert {"Effect": "Deny", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}.items() <= policy[0].items()


def test_an_operators_model_map_has_a_history(dev: Environment) -> None:
    assert dev.one("Data", "S3::Bucket", "Config")["VersioningConfiguration"] == {"Status": "Enabled"}


def test_secrets_are_made_empty(dev: Environment) -> None:
    secrets = dev.resources("Data", "SecretsManager::Secret").values()
    assert {secret["Name"] for secret in secrets} == {
        "/lexora/dev/OPENAI_API_KEY",
        "/lexora/dev/ANTHROPIC_API_KEY",
        "/lexora/dev/GPU_API_KEY",
    }
    assert not any({"SecretString", "GenerateSecretString"} & secret.keys() for secret in secrets)


def test_the_edges_secret_is_made_up_by_aws(prod: Environment) -> None:
    secret = prod.one("Data", "SecretsManager::Secret", "EdgeSecret")
    assert secret["Name"] == "/lexora/prod/EDGE_SECRET"
    assert secret["GenerateSecretString"]["PasswordLength"] >= 32


def test_the_seed_function_may_fill_and_nothing_else(dev: Environment) -> None:
    log, bucket = dev.statements("Data", "SeedFunctionRole")
    assert log["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert text(log["Resource"]).startswith("{SeedFunctionLog")
    assert bucket["Action"] == "s3:PutObject"
    assert text(bucket["Resource"]).endswith(".Arn}/config/model_map.json")


def test_the_seed_runs_after_its_rights_are_there(dev: Environment) -> None:
    resource = next(
        resource for resource in dev.templates["Data"]["Resources"].values() if resource["Type"] == "Custom::LexoraSeed"
    )
    assert any(id_.startswith("SeedFunctionRoleDefaultPolicy") for id_ in resource["DependsOn"])
    assert text(resource["Properties"]["ServiceToken"]).startswith("{SeedFunction")
    variables = dev.one("Data", "Lambda::Function", "Seed")["Environment"]["Variables"]
    assert variables.keys() == {"CONFIG_BUCKET", "MODEL_MAP_KEY"}
    assert variables["MODEL_MAP_KEY"] == "config/model_map.json"


def test_the_seed_runs_again_when_the_model_map_or_its_bucket_is_another(dev: Environment) -> None:
    filled = dev.one("Data", "Custom::LexoraSeed")
    assert filled["Content"] == hashlib.sha256(seed.MODEL_MAP.read_bytes()).hexdigest()
    assert filled["Bucket"]["Ref"].startswith("Config")


def test_outputs(dev: Environment) -> None:
    assert dev.outputs("Data").keys() == {
        "ConfigBucketName",
        "AnswersTableName",
        "RequestsTableName",
        "LimitsTableName",
        "CacheTableName",
    }
