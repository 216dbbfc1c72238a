"""docker-compose.yml without an engine: it is valid, and names only what the code has."""

import re
from pathlib import Path

import pytest
import yaml

from qaserve.cli.base import app
from qaserve.settings import Settings, setting_names

ROOT = Path(__file__).parents[2]
PLACEHOLDER = re.compile(r"\$\{(\w+)(?::[?-]([^}]*))?\}")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def test_every_service_has_an_image_a_health_check_and_known_dependencies(compose):
    services = compose["services"]
    assert set(services) == {"qdrant", "api", "page"}
    for service in services.values():
        assert service["image"]
        assert service["healthcheck"]["test"][0] == "CMD"
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in compose["volumes"]
    assert re.fullmatch(r"qdrant/qdrant:v1\.19\.\d+", services["qdrant"]["image"])


def test_ports_are_published_on_loopback_only(compose):
    for service in compose["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", ["api", "page"])
def test_the_environment_is_accepted_by_settings(compose, monkeypatch, name):
    environment = compose["services"][name]["environment"]
    assert set(environment) <= set(setting_names())
    for variable, value in environment.items():
        monkeypatch.setenv(variable, PLACEHOLDER.sub(lambda found: "x" if "set " in found[2] else found[2], value))
    settings = Settings()
    port = {"api": settings.server.port, "page": settings.server.ui_port}[name]
    service = compose["services"][name]
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f":{port}/" in service["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", ["api", "page"])
def test_commands_exist_and_health_urls_are_served(compose, name, engine):
    from qaserve.api import create_app
    from qaserve.settings import ServerSettings

    service = compose["services"][name]
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert service["command"][0] in commands
    if name == "api":
        paths = create_app(engine, ServerSettings()).openapi()["paths"]
        assert "/readyz" in service["healthcheck"]["test"][-1]
        assert "/readyz" in paths


def test_the_page_finds_the_api_and_the_api_finds_qdrant(compose):
    services = compose["services"]
    assert services["page"]["environment"]["QASERVE_API_URL"] == "http://api:8000"
    assert services["api"]["environment"]["QASERVE_QDRANT_URL"] == "http://qdrant:6333"


def test_the_image_copies_every_package_and_runs_as_nobody_special():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for package in ("qaserve", "ingest", "train", "ui"):
        assert f"COPY {package} {package}" in text
    assert "USER qaserve" in text
