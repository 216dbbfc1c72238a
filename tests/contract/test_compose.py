"""docker-compose.yml without an engine: it is valid, and names only what the code has."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from qaserve.api import create_app
from qaserve.cli import load_all
from qaserve.client.http import Client
from qaserve.settings import Settings, setting_names

ROOT = Path(__file__).parents[2]
PLACEHOLDER = re.compile(r"\$\{(\w+)(?::[?-]([^${}]*))?\}")
PAGE_KEY = re.compile(r"\$\{PAGE_KEY:-(.*)\}")
NODES = ["qdrant", "qdrant-2", "qdrant-3"]
OURS = ["api", "page"]
HARDENED = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


@pytest.fixture
def settings_of(compose, monkeypatch):
    """The settings of a service, with keys that differ, and everything else as it is unless told otherwise."""

    def read(name, page_key=""):
        with monkeypatch.context() as patch:
            patch.delenv("QASERVE_ALLOWED_HOSTS")
            for variable, value in compose["services"][name]["environment"].items():
                chosen = PAGE_KEY.sub(lambda found: page_key or found[1], value)
                filled = PLACEHOLDER.sub(lambda found: f"a {found[1]}" if "set " in found[2] else found[2], chosen)
                patch.setenv(variable, filled)
            return Settings()

    return read


def healthcheck(service, port):
    """Run the health check of a service against another port; gives whether it was content."""
    _, program, *arguments = service["healthcheck"]["test"]
    known = re.search(r"127\.0\.0\.1[:/](\d+)", arguments[-1])
    arguments[-1] = arguments[-1].replace(known[0], known[0].replace(known[1], str(port)))
    command = [{"python": sys.executable}.get(program, program), *arguments]
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0


def test_every_service_is_whole(compose):
    services = compose["services"]
    assert list(services) == [*NODES, *OURS]
    for name, service in services.items():
        assert service["healthcheck"]["test"][0] == "CMD"
        assert set(service.get("depends_on", {})) <= set(services) - {name}
        assert service.items() >= HARDENED.items()
        assert service["tmpfs"] == ["/tmp"]
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in compose["volumes"]
    used = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert used == set(compose["volumes"])


def test_ports_are_published_on_loopback_only(compose):
    published = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert {name for name, ports in published.items() if ports} == set(OURS)
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)


def test_keys_come_from_the_environment_and_must_be_there(compose):
    for service in compose["services"].values():
        for variable, value in service["environment"].items():
            if variable.endswith("_KEY"):
                found = PLACEHOLDER.fullmatch(PAGE_KEY.sub(r"\1", value))
                assert found
                assert ":?" in value
                assert found[1] in setting_names()


@pytest.mark.parametrize("name", OURS)
def test_the_environment_is_accepted_by_settings(compose, settings_of, name):
    service = compose["services"][name]
    assert set(service["environment"]) <= set(setting_names())
    settings = settings_of(name)
    port = {"api": settings.server.port, "page": settings.server.ui_port}[name]
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"127.0.0.1:{port}/" in service["healthcheck"]["test"][-1]


def test_the_api_has_two_keys_and_the_page_the_lesser_one_unless_it_is_given_another(compose, settings_of):
    api, page = settings_of("api").server, settings_of("page").server
    assert api.api_key != api.write_key
    assert (page.api_key, page.write_key) == (api.api_key, None)
    trusted = settings_of("page", page_key=api.write_key.get_secret_value()).server
    assert (trusted.api_key, trusted.write_key) == (api.write_key, None)
    named = [name for name, service in compose["services"].items() if "PAGE_KEY" in str(service)]
    assert named == ["page"]


def test_the_page_finds_the_api_and_is_let_in(settings_of):
    api, page = settings_of("api").server, settings_of("page").server
    address = urlsplit(page.api_url)
    assert (address.hostname, address.port) == ("api", api.port)
    assert {"api", "127.0.0.1"} <= api.host_names
    assert Client(**page.client).url == "http://api:8000"


def test_the_api_finds_the_first_node_with_its_keys(compose, settings_of):
    store = settings_of("api").store
    assert store.qdrant_url == "http://qdrant:6333"
    assert store.qdrant_api_key != store.qdrant_read_api_key
    api = compose["services"]["api"]["environment"]
    for name in NODES:
        node = compose["services"][name]["environment"]
        assert node["QDRANT__SERVICE__API_KEY"] == api["QASERVE_QDRANT_API_KEY"]
        assert node["QDRANT__SERVICE__READ_ONLY_API_KEY"] == api["QASERVE_QDRANT_READ_API_KEY"]


def test_three_nodes_find_each_other(compose):
    services = compose["services"]
    for name in NODES:
        node = services[name]
        assert re.fullmatch(r"qdrant/qdrant:v1\.18\.3-unprivileged", node["image"])
        assert node["environment"]["QDRANT__CLUSTER__ENABLED"] == "true"
        assert node["volumes"] == [f"{name}:/qdrant/storage"]
        own = ["--uri", f"http://{name}:6335"]
        if name == "qdrant":
            assert node["command"] == ["./qdrant", *own]
            assert "profiles" not in node
        else:
            assert node["command"] == ["./qdrant", "--bootstrap", "http://qdrant:6335", *own]
            assert node["profiles"] == ["cluster"]
            assert node["depends_on"] == {"qdrant": {"condition": "service_healthy"}}


@pytest.mark.parametrize("name", OURS)
def test_commands_exist(compose, name):
    commands = {command.name or command.callback.__name__ for command in load_all().registered_commands}
    assert compose["services"][name]["command"][0] in commands


def test_health_checks_tell_ready_from_not(compose, engine, settings_of, serve_app, http_server):
    services = compose["services"]
    url = serve_app(create_app(engine, settings_of("api").server))
    with Client(url, retries=20) as client:
        client.ready()
    assert healthcheck(services["api"], urlsplit(url).port)
    for status, content in ((200, True), (503, False)):
        port = urlsplit(http_server(status=status, body=b"all shards are ready")).port
        for name in ("qdrant", "api", "page"):
            assert healthcheck(services[name], port) is content


def test_the_image_copies_every_package_and_runs_as_nobody_special():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for package in ("qaserve", "ingest", "train", "ui"):
        assert f"COPY {package} {package}" in text
    assert "USER qaserve" in text
    assert "ENV HOME=/tmp" in text
