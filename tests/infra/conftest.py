"""Synthesised once a session: environment `dev` as it comes, and `prod` with everything that can be set."""

from pathlib import Path

import pytest

from tests.infra.synthesis import Environment, synthesise

EVERYTHING = {
    "edge_only": "true",
    "tracing": "true",
    "snap_start": "true",
    "domain": "llm.example.org",
    "certificate_arn": "arn:aws:acm:us-east-1:123456789012:certificate/1",
    "alarm_email": "ops@example.org",
    "ALLOW_ORIGINS": "https://app.example.org, http://localhost:3000",
    "RATE_LIMIT_QPM": "1200",
    "burstLimit": "50",
    "memory_mb": "1024",
    "log_retention_days": "90",
    "message_text": "false",
    "store_responses": "true",
    "architecture": "x86_64",
    "python": "3.12",
    "bedrock_models": "eu.anthropic.claude-sonnet-4-6, amazon.nova-pro-v1:0, "
    "arn:aws:bedrock:eu-west-1:123456789012:prompt-router/a",
}


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return synthesise(tmp_path_factory.mktemp("dev"), {})


@pytest.fixture(scope="session")
def prod(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return synthesise(tmp_path_factory.mktemp("prod"), {"environment": "prod", **EVERYTHING})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cdk.out"
