"""Importing pairs through the page: good and bad rows, hostile texts, and back again."""

import json
import re

import httpx
import pytest
from playwright.sync_api import expect

PAIRS = 240
NEW = "Which colour does the Zyxotron lamp show when it is charged?"

pytestmark = [pytest.mark.browser, pytest.mark.corpus]


@pytest.fixture
def going_back(service):
    """The build that is live, made live again afterwards."""
    before = live(service)
    yield before
    httpx.post(f"{service.api}/v1/builds/{before}/activate", timeout=60).raise_for_status()


def live(service):
    builds = httpx.get(f"{service.api}/v1/builds", timeout=60).json()["builds"]
    return next(one["build"] for one in builds if one["live"])


def bring_in(service, tab, path):
    tab.goto(f"{service.page}/ingest")
    tab.locator("input[type=file]").set_input_files(str(path))
    tab.get_by_role("button", name="See what would change").click()
    foretold(tab)


def foretold(tab):
    """Wait for a look to end; what it changes is shown before, under a smaller heading."""
    expect(tab.get_by_role("heading", name="What would change", level=2)).to_be_visible(timeout=180_000)
    expect(tab.get_by_role("heading", name="Clusters: groups of similar answers")).to_be_visible()
    expect(tab.get_by_role("heading", name="Quality: how well questions")).to_be_visible()


def find(service, tab, question):
    tab.goto(service.page)
    box = tab.get_by_placeholder("What do you want to know?")
    box.fill(question)
    box.press("Enter")
    expect(tab.get_by_text("Why these answers")).to_be_visible()


def test_good_and_bad_rows_then_found_then_rolled_back_then_gone(service, tab, tmp_path, going_back):
    path = tmp_path / "lamps.jsonl"
    good = {"question": NEW, "answer": "It glows in **ultramarine**.", "pair_id": "lamp", "topics": ["Lamps"]}
    path.write_text(json.dumps(good) + "\n{broken\n" + json.dumps({"question": "no answer"}) + "\n")
    bring_in(service, tab, path)
    assert live(service) == going_back, "a look changes nothing"
    expect(tab.get_by_text("2 rejected lines")).to_be_visible()
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Download with reasons").click()
    rejected = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert [row["line"] for row in rejected] == [2, 3]
    dry_run = tab.url
    tab.get_by_role("button", name="Import lamps").click()
    tab.wait_for_url(lambda url: "job=" in url and url != dry_run)
    tab.reload()  # the address holds the job: work goes on
    expect(tab.get_by_role("heading", name="What was done")).to_be_visible(timeout=180_000)
    expect(tab.get_by_text(f"holds {PAIRS + 1} pairs")).to_be_visible()
    assert live(service) != going_back
    find(service, tab, NEW)
    expect(tab.get_by_text("ultramarine")).to_be_visible()
    tab.goto(f"{service.page}/ingest")
    tab.get_by_role("tab", name="Builds").click()
    row = tab.locator(f"[class*=st-key-build-{going_back}]")
    row.get_by_role("button", name="Go back to it").click()
    tab.get_by_role("button", name="Make it live").click()
    expect(row.get_by_text("live", exact=True)).to_be_visible()
    assert live(service) == going_back
    find(service, tab, NEW)
    expect(tab.get_by_text("ultramarine")).to_have_count(0)


def test_one_pair_can_be_written_by_hand(service, tab):
    tab.goto(f"{service.page}/ingest")
    tab.get_by_text("Add one pair").click()
    send = tab.get_by_role("button", name="See what would change")
    send.click()
    expect(tab.get_by_text("needs a question and an answer")).to_be_visible()
    tab.get_by_label("Question").fill(NEW)
    tab.get_by_label("Answer, in Markdown").fill("Ultramarine.")
    send.click()
    foretold(tab)
    expect(tab.get_by_text(re.compile(rf"would hold {PAIRS + 1} pairs"))).to_be_visible()


HOSTILE = {
    "script": "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> quokkas hop",
    "image": "![quokka](http://198.51.100.7/pixel.png) <img src='http://198.51.100.7/p.png'> quokkas hop",
    "link": "[https://good.example](http://evil.example/x) [now](javascript:window.hacked=1) quokkas hop",
    "huge": "quokkas hop " + "and hop again " * 75_000,
    "right to left": "قفز الكوكا عاليا \u202e quokkas hop \u202c שלום",
    "emoji": "quokkas hop 🦘👩‍👩‍👧‍👦🏳️‍🌈 :smile: $x^2$ :red[no]",
}


def test_hostile_texts_break_nothing(service, tab, going_back):
    rows = [
        {"question": f"How does a quokka hop, {name}?", "answer": answer, "pair_id": f"q{name}", "cluster_id": name}
        for name, answer in HOSTILE.items()
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    headers = {"Content-Type": "application/x-ndjson"}
    job = httpx.post(f"{service.api}/v1/ingest?name=hostile", content=lines, headers=headers, timeout=60).json()
    tab.goto(f"{service.page}/ingest?job={job['id']}")
    expect(tab.get_by_role("heading", name="What was done")).to_be_visible(timeout=180_000)
    outside = []
    tab.on("request", lambda request: outside.append(request.url) if service.page not in request.url else None)
    tab.goto(f"{service.page}/?q=How+does+a+quokka+hop%3F&top_k={len(HOSTILE)}")
    expect(tab.get_by_text("Why these answers")).to_be_visible()
    expect(tab.locator("[class*=st-key-card] h4")).to_have_count(1)
    others = tab.locator("[class*=st-key-other] summary")
    expect(others).to_have_count(len(HOSTILE) - 1)
    for other in others.all():
        other.click()
    expect(tab.get_by_text("https://good.example (evil.example)")).to_be_visible()
    expect(tab.get_by_text("cut here: the answer has")).to_be_attached()
    expect(tab.get_by_text(re.compile(":\u2060?smile:"))).to_be_visible()
    tab.goto(f"{service.page}/why?q=How+does+a+quokka+hop%3F")
    expect(tab.get_by_text("answered in other ways")).to_be_visible()
    assert tab.evaluate("window.hacked") is None
    assert tab.evaluate("document.documentElement.scrollWidth") <= 1440
    assert not [url for url in outside if url.startswith("http")]
