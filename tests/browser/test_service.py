"""The service as a process: it is killed under the page, stops cleanly, and starts again without encoding."""

import httpx
import pytest
from playwright.sync_api import expect

from qaserve.cli.service import SAMPLE

pytestmark = [pytest.mark.browser, pytest.mark.corpus]


@pytest.fixture
def apart(tmp_path, conftest, exports):
    """API and page as two processes over the sample corpus."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "encoders").symlink_to(exports)
    ports = conftest.free_port(), conftest.free_port()
    addresses = [f"http://127.0.0.1:{port}" for port in ports]
    environment = conftest.own_environment(
        tmp_path, QASERVE_PORT=str(ports[0]), QASERVE_UI_PORT=str(ports[1]), QASERVE_API_URL=addresses[0]
    )
    log = tmp_path / "log"
    running = {}

    def run(*command):
        running[command[0]] = conftest.start(command, environment, log)
        return running[command[0]]

    def wait(url):
        def answers():
            try:
                return httpx.get(url, timeout=5).is_success
            except httpx.HTTPError:
                return False

        conftest.wait_until(answers, lambda: all(one.poll() is None for one in running.values()), log)

    assert run("ingest", SAMPLE).wait(300) == 0, log.read_text()
    del running["ingest"]
    try:
        run("serve")
        run("ui")
        wait(f"{addresses[0]}/readyz")
        wait(f"{addresses[1]}/_stcore/health")
        yield run, wait, running, addresses
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def test_a_server_killed_in_the_middle_is_said_and_answers_when_it_is_back(apart, tab):
    run, wait, running, (api, page) = apart
    tab.goto(page)
    box = tab.get_by_placeholder("What do you want to know?")
    box.fill("How do I add a pair?")
    box.press("Enter")
    expect(tab.get_by_text("Why these answers")).to_be_visible()
    running["serve"].kill()
    running["serve"].wait()
    box.fill("How do I go back to an earlier build?")
    box.press("Enter")
    expect(tab.get_by_text("The search service does not answer")).to_be_visible()
    assert tab.get_by_text("Traceback").count() == 0
    run("serve")
    wait(f"{api}/readyz")
    tab.get_by_role("button", name="Try again").click()
    expect(tab.get_by_text("Why these answers")).to_be_visible()
    expect(tab.get_by_placeholder("What do you want to know?")).to_have_value("How do I go back to an earlier build?")


def test_the_same_file_again_starts_without_encoding_and_stops_cleanly(tmp_path, conftest):
    first = conftest.Service(tmp_path, SAMPLE)
    first.wait()
    assert "Encoding" in first.log.read_text()
    assert first.stop() == 0
    for url in (first.api, first.page):
        with pytest.raises(httpx.ConnectError, match="refused"):
            httpx.get(url)
    first.log.unlink()
    second = conftest.Service(tmp_path, SAMPLE)
    second.wait()
    text = second.log.read_text()
    assert "unchanged." in text
    assert "Encoding" not in text
    assert httpx.get(f"{second.api}/readyz", timeout=30).json()["corpus"] == "sample"
    assert second.stop() == 0
    assert "Stopped." in second.log.read_text()
    assert "Traceback" not in second.log.read_text()
