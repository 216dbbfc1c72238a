"""Clusters and results."""

from collections import Counter

import httpx
import pytest
from playwright.sync_api import expect

from ui import charts
from ui.markdown import plain_name
from ui.pages.results import ABOUT

pytestmark = [pytest.mark.browser, pytest.mark.corpus]


def test_a_cluster_can_be_found_and_opened(service, tab):
    clusters = httpx.get(f"{service.api}/v1/quality", timeout=60).json()["clusters"]
    one = clusters[1]
    tab.set_viewport_size({"width": 1440, "height": 3_000})  # scrolling closes an open list
    tab.goto(f"{service.page}/clusters")
    expect(tab.get_by_text(f"{len(clusters):,} clusters.")).to_be_visible()
    tab.get_by_label("Search clusters").fill(one["terms"][0])
    tab.get_by_label("Search clusters").press("Enter")
    expect(tab.get_by_text(f"{len(clusters):,} clusters.")).to_have_count(0)
    tab.get_by_label("Open a cluster").click()
    tab.get_by_role("option", name=f"{one['name']} ({one['size']})", exact=True).click()
    expect(tab.get_by_text(f"Its {one['size']} pairs")).to_be_visible()
    assert f"open={one['cluster']}" in tab.url
    expect(tab.get_by_text(f"{one['found']:.0%}").first).to_be_visible()
    tab.locator("[data-testid=stExpander]").last.click()
    view = httpx.get(f"{service.api}/v1/quality/{one['cluster']}", timeout=60).json()
    tab.get_by_role("button", name=view["neighbours"][0]["name"]).click()
    tab.wait_for_url(f"**open={view['neighbours'][0]['cluster']}*")


def test_a_click_on_a_name_opens_the_cluster(service, tab):
    tab.set_viewport_size({"width": 1440, "height": 2_000})
    tab.goto(f"{service.page}/clusters")
    table = tab.locator("[data-testid=stDataFrame]").first
    expect(table).to_be_visible()
    tab.wait_for_timeout(1_000)  # the table is a canvas, which says nothing of when it is drawn
    place = table.bounding_box()
    tab.mouse.click(place["x"] + 120, place["y"] + 55)
    tab.wait_for_url("**open=*")
    clusters = httpx.get(f"{service.api}/v1/quality", timeout=60).json()["clusters"]
    largest = max(clusters, key=lambda one: one["size"])
    expect(tab.get_by_text(f"Its {largest['size']} pairs")).to_be_visible()


def test_the_map_shows_the_density_of_answers_and_can_still_be_selected_on(service, tab):
    tab.set_viewport_size({"width": 1440, "height": 1_600})
    tab.goto(f"{service.page}/clusters")
    chart = tab.locator("[data-testid=stVegaLiteChart]").first
    expect(chart.locator("svg, canvas").first).to_be_visible()
    expect(tab.get_by_text("the stronger, the more answers")).to_have_count(0)
    tab.get_by_text("Show density").click()
    expect(tab.get_by_text("the stronger, the more answers")).to_be_visible()
    expect(chart.locator(".mark-rect.role-mark > path").nth(100)).to_be_attached()
    expect(chart.locator(".mark-symbol.role-mark > path").nth(100)).to_be_attached()
    place = chart.bounding_box()
    tab.keyboard.down("Shift")
    tab.mouse.move(place["x"] + 60, place["y"] + 40)
    tab.mouse.down()
    tab.mouse.move(place["x"] + place["width"] - 60, place["y"] + place["height"] - 40, steps=8)
    tab.mouse.up()
    tab.keyboard.up("Shift")
    expect(tab.get_by_role("heading", name="selected on the map")).to_be_visible()


def test_the_answers_of_the_map_are_fetched_once_and_those_of_the_largest_cluster_have_its_colour(service, tab):
    corpus = httpx.get(f"{service.api}/v1/map", timeout=60).json()
    fetched = []
    tab.on("response", lambda reply: fetched.append(reply) if "map_answers" in reply.url else None)
    tab.goto(f"{service.page}/clusters")
    dots = tab.locator(".mark-symbol.role-mark > path")
    expect(dots).to_have_count(len(corpus["answers"]))
    first, rest = (
        tab.locator(f'.mark-symbol.role-mark > path[fill="{colour}"]') for colour in (charts.PALETTE[0], charts.REST)
    )
    sizes = sorted(Counter(one["cluster"] for one in corpus["answers"]).values(), reverse=True)
    expect(first).to_have_count(sizes[0])
    expect(rest).to_have_count(sum(sizes[len(charts.PALETTE) :]))
    tab.get_by_text("Skill", exact=True).click()
    skills = Counter(plain_name(one["skill"]) for one in corpus["answers"] if one["skill"])
    expect(first).to_have_count(max(skills.values()))
    tab.goto(f"{service.page}/why?q=bread")
    expect(dots.first).to_be_attached()
    assert len({reply.url for reply in fetched}) == 1
    assert "immutable" in fetched[0].headers["cache-control"]
    rows = httpx.get(fetched[0].url, timeout=60).json()
    assert [(one["id"], one["question"]) for one in rows] == [(one["id"], one["question"]) for one in corpus["answers"]]
    old = httpx.get(f"{service.page}/map_answers", params={"build": "aaaaaaaaaaaa"}, timeout=60)
    assert (old.status_code, old.json()) == (404, {"error": "build aaaaaaaaaaaa is not live"})
    assert "cache-control" not in old.headers


def test_results_are_sentences_plots_and_tables(service, tab):
    tab.goto(f"{service.page}/results")
    reports = httpx.get(f"{service.api}/v1/reports", timeout=60).json()["reports"]
    expect(tab.locator(".st-key-headline").get_by_role("heading")).to_be_visible()
    expect(tab.locator(".st-key-headline [data-testid=stVegaLiteChart]")).to_be_visible()
    tab.get_by_role("radio", name=ABOUT[reports[-1]["name"]][0]).click()
    report = httpx.get(f"{service.api}/v1/reports/{reports[-1]['name']}", timeout=60).json()
    expect(tab.get_by_text("Measured on").first).to_be_visible()
    for picture in report["pictures"]:
        expect(tab.get_by_role("img", name=picture["title"], exact=True)).to_be_visible()
    tab.wait_for_url("**report=*")
    tab.goto(tab.url)
    expect(tab.get_by_role("heading", name=report["summary"][0])).to_be_visible()
