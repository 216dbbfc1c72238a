"""No page has a fault that axe-core finds, in either theme."""

import os

import pytest
from playwright.sync_api import expect
from test_looks import PAGES

pytestmark = [pytest.mark.browser, pytest.mark.corpus]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault_on_any_page(service, browser, scheme):
    if not os.environ.get("CI"):
        pytest.importorskip("axe_playwright_python")
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport={"width": 1440, "height": 1000}, color_scheme=scheme, bypass_csp=True)
    context.set_default_timeout(60_000)
    tab, found = context.new_page(), {}
    for name, (address, last) in PAGES.items():
        tab.goto(f"{service.page}{address}")
        expect(tab.locator("[data-testid=stMain]").get_by_text(last).last).to_be_attached(timeout=60_000)
        expect(tab.locator("[data-testid=stSpinner], [data-testid=stSkeleton]")).to_have_count(0, timeout=60_000)
        report = Axe().run(tab, options={"resultTypes": ["violations"]})
        found |= {f"{name}: {one['id']}": one["nodes"][0]["html"] for one in report.response["violations"]}
    context.close()
    assert found == {}
