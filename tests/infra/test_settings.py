from typing import Any

import pytest

from infra.settings import Settings, SettingsError, read_settings


def read(context: dict[str, Any] | None = None, environ: dict[str, str] | None = None) -> Settings:
    return read_settings((context or {}).get, environ or {})


def test_defaults() -> None:
    settings = read()
    assert (settings.environment, settings.name, settings.secret_prefix) == ("dev", "lexora-dev", "/lexora/dev/")
    assert (settings.memory_mb, settings.log_retention_days, settings.architecture) == (512, 14, "arm64")
    assert not (settings.snap_start or settings.tracing or settings.canary or settings.pitr or settings.edge_only)


def test_later_places_win() -> None:
    context = {"environments": {"dev": {"rate_limit_qpm": 1, "burst_limit": 1, "memory_mb": 256}}}
    environ = {"RATE_LIMIT_QPM": "2", "BURST_LIMIT": "2"}
    assert read(context).rate_limit_qpm == 1
    assert read(context, environ).rate_limit_qpm == 2
    settings = read({**context, "RATE_LIMIT_QPM": "3"}, environ)
    assert (settings.rate_limit_qpm, settings.burst_limit, settings.memory_mb) == (3, 2, 256)


@pytest.mark.parametrize("name", ["environment", "environmentName"])
def test_an_environments_own_settings(name: str) -> None:
    environments = {"prod": {"removal": "retain"}, "dev": {"memory_mb": 1024}}
    settings = read({"environments": environments, name: "prod"})
    assert (settings.environment, settings.removal, settings.memory_mb) == ("prod", "retain", 512)
    assert read({"environments": environments, name: "new"}).removal == "destroy"


@pytest.mark.parametrize("spelling", ["burstLimit", "burst_limit", "BURST_LIMIT"])
def test_spellings(spelling: str) -> None:
    assert read({spelling: "7"}).burst_limit == 7
    assert read({"environments": {"dev": {spelling: 8}}}).burst_limit == 8


@pytest.mark.parametrize("spelling", ["burstLimit", "BURST_LIMIT"])
def test_spellings_of_environment_variables(spelling: str) -> None:
    assert read({}, {spelling: "9"}).burst_limit == 9


def test_lists_are_comma_separated() -> None:
    assert read({"bedrock_models": "a.b-v1:0, arn:aws:bedrock:eu-west-1:123456789012:y/z"}).bedrock_models == (
        "a.b-v1:0",
        "arn:aws:bedrock:eu-west-1:123456789012:y/z",
    )
    settings = read({"secrets": "A_KEY,B_KEY"}, {"ALLOW_ORIGINS": "https://a.example, http://localhost:3000,"})
    assert settings.allow_origins == ("https://a.example", "http://localhost:3000")
    assert settings.secrets == ("A_KEY", "B_KEY")


def test_what_is_empty_is_not_set() -> None:
    assert read({"memory_mb": ""}, {"RATE_LIMIT_QPM": ""}) == read()


@pytest.mark.parametrize(
    ("context", "environ", "told"),
    [
        ({"memory_mb": "12"}, {}, "-c memory_mb: Input should be greater than or equal to 128 (it is '12')"),
        ({}, {"RATE_LIMIT_QPM": "0"}, "environment variable RATE_LIMIT_QPM: Input should be greater"),
        ({"burstLimit": "many"}, {}, "-c burstLimit: Input should be a valid integer"),
        ({}, {"ALLOW_ORIGINS": "example.org"}, "ALLOW_ORIGINS: 'example.org' is no origin; write https://host"),
        ({}, {"ALLOW_ORIGINS": "https://a.example/"}, "'https://a.example/' is no origin"),
        ({"environments": {"dev": {"memory": 1}}}, {}, "environments.dev.memory in cdk.json: there is no such setting"),
        ({"environments": {"dev": {"log_retention_days": 15}}}, {}, "environments.dev.log_retention_days in cdk.json"),
        ({"environments": {"dev": 1}}, {}, "environments.dev in cdk.json: must be an object"),
        ({"environments": 1}, {}, "environments.dev in cdk.json: must be an object"),
        ({"environments": {"dev": {"environment": "x"}}}, {}, "must not hold `environment`"),
        ({"environment": "Prod"}, {}, "-c environment: String should match pattern"),
        ({"environment": "a-name-that-is-too-long"}, {}, "-c environment"),
        ({"environment": "v1"}, {}, "environment 'v1': this name is a path of the API"),
        ({"domain": "llm.example.org"}, {}, "domain and certificate_arn go together"),
        ({"certificate_arn": "arn:aws:acm:eu-west-1:123456789012:certificate/1"}, {}, "-c certificate_arn"),
        ({"snap_start": "true", "python": "3.11"}, {}, "snap_start needs python 3.12"),
        ({"removal": "keep"}, {}, "-c removal: Input should be 'destroy' or 'retain'"),
        ({"secrets": "lower"}, {}, "-c secrets"),
        ({"bedrock_models": "*"}, {}, "-c bedrock_models"),
        ({"bedrock_models": "arn:aws:bedrock:us-east-1::foundation-model/*"}, {}, "-c bedrock_models"),
        ({"alarm_email": "nobody"}, {}, "-c alarm_email"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(context: dict[str, Any], environ: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(context, environ)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_all_that_is_wrong_is_told() -> None:
    with pytest.raises(SettingsError, match=r"RATE_LIMIT_QPM: .*; -c memory_mb: "):
        read({"memory_mb": "1"}, {"RATE_LIMIT_QPM": "-1"})
