"""What watches the gateway names only metrics that the gateway has."""

import json
import re

import pytest
import yaml

from tests.support.gateway import ROOT

DEPLOY = ROOT / "deploy"
SOURCES = "".join(
    path.read_text() for layer in ("adapters", "entry") for path in (ROOT / "lexora" / layer).glob("*.py")
)


def dashboard() -> list[str]:
    panels = json.loads((DEPLOY / "grafana" / "lexora.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def alerts() -> list[str]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("expression", [*dashboard(), *alerts()])
def test_every_metric_exists(expression: str) -> None:
    for name in re.findall(r"lexora_\w+", expression):
        assert f'"{re.sub("_(total|bucket)$", "", name)}"' in SOURCES, name


def test_prometheus_scrapes_the_port_of_the_sample_config() -> None:
    config = yaml.safe_load((DEPLOY / "config.yaml").read_text())
    jobs = {
        job["job_name"]: job
        for job in yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    }
    assert jobs["lexora"]["static_configs"][0]["targets"] == [f"127.0.0.1:{config['metrics']['port']}"]
