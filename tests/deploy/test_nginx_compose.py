"""The compose file of phase 1: valid, and of one mind with nginx's templates, the script and the page."""

import re
from pathlib import Path

import pytest
import yaml

from tests.deploy.test_compose import check
from tests.support.gateway import ROOT

FOLDER = ROOT / "deploy" / "nginx"
TEMPLATES = {path.name: path.read_text() for path in FOLDER.glob("*.template")}
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
(SERVICE,) = COMPOSE["services"].values()
ENVIRONMENT: dict[str, str] = SERVICE["environment"]
MOUNTS = dict(volume.removesuffix(":ro").split(":")[::-1] for volume in SERVICE["volumes"])
DEFAULTS = {
    name: found[1] for name, value in ENVIRONMENT.items() if (found := re.fullmatch(rf"\$\{{{name}:-(.+)\}}", value))
}
MAKEFILE = (ROOT / "Makefile").read_text()


def test_it_is_a_compose_file_with_an_image_of_one_version() -> None:
    done = check(FOLDER / "compose.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"[a-z/-]+:\d+\.\d+\.\d+", SERVICE["image"])


def test_the_templates_are_filled_in_with_what_is_set() -> None:
    named = {name for text in TEMPLATES.values() for name in re.findall(r"\$\{(\w+)\}", text)}
    substituted = re.compile(ENVIRONMENT["NGINX_ENVSUBST_FILTER"])
    assert named == {name for name in ENVIRONMENT if substituted.search(name)}
    assert named == ENVIRONMENT.keys() - {"NGINX_ENVSUBST_FILTER"}


def test_what_is_mounted_is_where_nginx_looks() -> None:
    assert {source for source in MOUNTS.values() if source.startswith("./")} == {f"./{name}" for name in TEMPLATES}
    # The name of the image's own site, so that it is replaced.
    assert MOUNTS["/etc/nginx/templates/default.conf.template"] == "./lexora.conf.template"
    assert MOUNTS["/etc/nginx/templates/lexora.inc.template"] == "./lexora.inc.template"
    assert "include conf.d/lexora.inc;" in TEMPLATES["lexora.conf.template"]
    assert (FOLDER / MOUNTS[ENVIRONMENT["ANSWERS"]] / "catalogue.json").is_file()


def test_the_cache_is_in_a_named_volume_and_nothing_else_is_written() -> None:
    assert MOUNTS[str(Path(ENVIRONMENT["CACHE"]).parent)] in COMPOSE["volumes"]
    assert f"find {ENVIRONMENT['CACHE']} " in MAKEFILE
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", ["UPSTREAM", "MISSES", "LISTEN", "FILL_LISTEN"])
def test_unless_told_otherwise_all_is_on_loopback(name: str) -> None:
    assert re.fullmatch(r"127\.0\.0\.1:\d+", DEFAULTS[name])


def test_the_script_and_the_targets_know_the_doors_and_the_variants() -> None:
    script = (ROOT / "scripts" / "warmup.sh").read_text()
    assert f"url=http://{DEFAULTS['FILL_LISTEN']}\n" in script
    assert f"--check $(or $(URL),http://{DEFAULTS['LISTEN']})" in MAKEFILE
    picked = re.findall(r"split_clients .+?\{(.+?)\}", TEMPLATES["lexora.conf.template"], re.DOTALL)[0]
    assert re.findall(r"(\d);", picked) == ["0", "1", "2", "3", "4"]
    assert "variants=5 " in script


@pytest.mark.parametrize("page", ["nginx.md", "phases.md"])
def test_what_the_pages_name_is_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE))
    assert {"cache-up", "cache-warm"} <= named <= targets
    for path in re.findall(r"`((?:deploy|scripts|docs|static_responses|bench)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    for path, anchor in re.findall(r"\]\(([\w.-]+)?(#[\w-]+)?\)", text):
        target = (ROOT / "docs" / (path or page)).read_text()
        headings = [
            re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-")
            for line in re.findall("^#+ (.+)$", target, re.MULTILINE)
        ]
        assert not anchor or anchor[1:] in headings, anchor
