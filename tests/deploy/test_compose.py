"""The compose file: valid, and of one mind with the config, the scrape file and the units that it stands in for."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from lexora import __version__
from lexora.entry.config import load_settings
from lexora.main import _parser
from tests.support.gateway import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
CONFIG = load_settings(DEPLOY / "compose" / "config.yaml")
CONTAINER_PORTS = {"vllm": 8000, "lexora": 8001, "prometheus": 9090, "grafana": 3000}


def load(*place: str) -> Any:
    return yaml.safe_load(DEPLOY.joinpath(*place).read_text())


def check(file: Path) -> subprocess.CompletedProcess[str]:
    """The compose specification's schema, as check-jsonschema brings it."""
    program = Path(sys.prefix) / "bin" / "check-jsonschema"
    command = [program, "--builtin-schema", "vendor.compose-spec", file]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def mounts(service: str) -> dict[str, str]:
    """Where each thing that is mounted stands in the container."""
    parts = [re.fullmatch(r"(\$\{.+?\}|[^:]+):([^:]+)(?::ro)?", volume) for volume in SERVICES[service]["volumes"]]
    return {part[2]: part[1] for part in parts if part}


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_it_is_a_compose_file(tmp_path: Path) -> None:
    done = check(DEPLOY / "compose.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    text = (DEPLOY / "compose.yaml").read_text()
    (tmp_path / "compose.yaml").write_text(text.replace("stop_grace_period", "stop_grace"))
    assert check(tmp_path / "compose.yaml").returncode == 1


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_of_one_version(name: str) -> None:
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", image)
    assert name != "lexora" or image == f"lexora:{__version__}"


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there(name: str) -> None:
    assert len(mounts(name)) == len(SERVICES[name]["volumes"])
    for source in mounts(name).values():
        if source.startswith("."):
            assert (DEPLOY / source).exists(), source
        elif not source.startswith("${"):
            assert source in COMPOSE["volumes"]


def test_only_loopback_is_published() -> None:
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert published.pop("vllm") == []
    for name, ports in published.items():
        (port,) = ports
        assert re.fullmatch(rf"127\.0\.0\.1:\d+:{CONTAINER_PORTS[name]}", port), name


@pytest.mark.parametrize("name", SERVICES)
def test_health_is_asked_for_at_the_port_of_the_service(name: str) -> None:
    urls = re.findall(r"http://[\w.:/-]+", " ".join(SERVICES[name]["healthcheck"]["test"]))
    assert [urlsplit(url).netloc for url in urls] == [f"127.0.0.1:{CONTAINER_PORTS[name]}"]


def test_the_config_is_that_of_the_host_but_for_places() -> None:
    """Whoever changes the one changes the other."""
    host, here = load("config.yaml"), load("compose", "config.yaml")
    del host["backends"]["ollama"]
    host["vllm"]["url"] = host["backends"]["vllm"]["url"] = "http://vllm:8000"
    host["metrics"]["host"] = "0.0.0.0"
    host["data"] = "/data"
    assert here == host


def test_the_gateway_finds_its_config_and_keeps_its_data() -> None:
    service = SERVICES["lexora"]
    config = Path(service["environment"]["LEXORA_CONFIG"])
    assert (DEPLOY / mounts("lexora")[str(config.parent)] / config.name).samefile(DEPLOY / "compose" / "config.yaml")
    assert mounts("lexora")[str(CONFIG.data)] in COMPOSE["volumes"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_whoever_reaches_the_gateway_needs_a_key() -> None:
    assert (CONFIG.server.host, CONFIG.server.port) == ("0.0.0.0", CONTAINER_PORTS["lexora"])
    assert CONFIG.auth.required is True


def test_vllm_is_started_as_the_gateway_asks_it() -> None:
    service = SERVICES["vllm"]
    path, *flags = service["command"]
    options = dict(zip(flags[::2], flags[1::2], strict=True))
    assert options == {"--host": "0.0.0.0", "--port": str(CONTAINER_PORTS["vllm"])}
    backend = CONFIG.backends["vllm"]
    assert urlsplit(str(backend.url)).netloc == f"vllm:{options['--port']}"
    assert [model.path for model in backend.models] == [path]
    assert Path(path).is_relative_to("/models")
    assert "/models" in mounts("vllm")
    (gpu,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert "gpu" in gpu["capabilities"]


def test_prometheus_scrapes_the_services_and_grafana_asks_prometheus() -> None:
    host, here = load("prometheus", "prometheus.yml"), load("compose", "prometheus.yml")
    targets = {job["job_name"]: job["static_configs"][0].pop("targets") for job in here["scrape_configs"]}
    assert CONFIG.metrics
    assert targets == {"lexora": [f"lexora:{CONFIG.metrics.port}"], "vllm": ["vllm:8000"]}
    assert CONFIG.metrics.host == CONFIG.server.host
    for job in host["scrape_configs"]:
        del job["static_configs"][0]["targets"]
    assert here == host
    (rules,) = here["rule_files"]
    assert mounts("prometheus")[f"/etc/prometheus/{rules}"] == "./prometheus/alerts.yml"

    ours, theirs = load("compose", "datasource.yaml"), load("grafana", "provisioning", "datasources", "prometheus.yaml")
    assert ours["datasources"][0].pop("url") == f"http://prometheus:{CONTAINER_PORTS['prometheus']}"
    del theirs["datasources"][0]["url"]
    assert ours == theirs
    (provider,) = load("grafana", "provisioning", "dashboards", "lexora.yaml")["providers"]
    assert f"{provider['options']['path']}/lexora.json" in mounts("grafana")


def test_it_stops_as_the_unit_does() -> None:
    unit = (DEPLOY / "systemd" / "spirrow-lexora.service").read_text()
    stop = seconds(SERVICES["lexora"]["stop_grace_period"])
    assert stop == int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0])
    assert stop >= CONFIG.server.grace_seconds + 10
    assert f"LimitNOFILE={SERVICES['lexora']['ulimits']['nofile']}\n" in unit


def test_no_password_is_shipped() -> None:
    assert SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_PASSWORD:?")
    assert "deploy/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_commands_of_the_page_are_there() -> None:
    page = (ROOT / "docs" / "gpu-host.md").read_text()
    inside = re.findall(r"docker compose exec (\w+) lexora ([^#`\n]+)", page)
    assert {arguments.split()[0] for _, arguments in inside} == {"keys", "reload"}
    for service, arguments in inside:
        assert service in SERVICES
        _parser().parse_args(arguments.split())
