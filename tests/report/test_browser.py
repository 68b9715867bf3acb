"""The page in a browser: offline, narrow, dark, printed, by keyboard and through a screen reader's eyes."""

import itertools
import os
import re
from pathlib import Path

import pytest

from adaptkit.report import html
from tests.report.browser import Browser, find_chromium
from tests.report.test_ways import conditional  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow

AUDIT = Path(__file__).with_name("audit.js").read_text()
PARTS = [
    "Verdict", "In pictures", "Before and after", "Ways through the model", "Step by step", "Layer by layer", "Energy",
    "Certificate passed", "How to reproduce",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium: install one, or name it in ADAPTKIT_CHROMIUM")
    found = Browser(program, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def page(pictured, conditional, tmp_path) -> Path:  # noqa: F811
    """A page with every part a report can have, and names as long as they come."""
    assert pictured is conditional
    pictured.name = "a-name-without-a-single-space-" + "x" * 60
    pictured.layers[0].name = "features." * 12 + "conv"
    pictured.notes.append("A path: /home/" + "folder/" * 20)
    pictured.gates[0].passed = False
    pictured.certificate.tolerance = 0.1  # its line is the upper edge
    for figures, accuracy in ((pictured.baseline, 0.9944), (pictured.steps[0].figures, 0.9861)):
        figures.accuracy = accuracy  # ticks with two decimals take the most room
    pictured.steps = pictured.steps[:1]
    path = tmp_path / "report.html"
    path.write_text(html.render(pictured))
    return path


def keep(name: str, tmp_path: Path) -> Path:
    """Name a file that is kept: in the folder of ADAPTKIT_ARTIFACTS, or else in the test's own."""
    folder = Path(os.environ.get("ADAPTKIT_ARTIFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def seen(browser: Browser, question: str) -> object:
    return browser.run(f"{AUDIT}\naudit.{question}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_overflows_and_nothing_is_fetched(browser, page, tmp_path, width, scheme):
    browser.open(page, width, scheme)
    assert seen(browser, "overflow()") == [0, []]
    assert seen(browser, "cut()") == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [page.as_uri()]
    assert browser.complaints() == []
    picture = keep(f"report-{width}-{scheme}.png", tmp_path)
    browser.screenshot(picture)
    assert picture.stat().st_size > 20_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser, page, scheme):
    browser.open(page, 1280, scheme)
    browser.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert seen(browser, "contrast(4.5)") == []


def test_headings_are_in_order(browser, page):
    browser.open(page)
    headings = [(each["level"], name) for name, each in browser.told("heading")]
    levels = [level for level, _ in headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert [name for level, name in headings if level == 2] == PARTS


def test_a_screen_reader_is_told_everything(browser, page):
    browser.open(page)
    images = browser.told("image")
    assert len(images) == browser.run("document.querySelectorAll('svg').length")
    assert all(name and each["description"] for name, each in images)
    for role in ("region", "table", "navigation", "figure"):
        assert browser.told(role)
        assert all(name for name, _ in browser.told(role)), role
    assert browser.run("document.documentElement.lang") == "en"
    assert browser.run("[...document.querySelectorAll('th')].every((each) => each.scope)")
    assert browser.run("[...document.querySelectorAll('table')].every((each) => each.caption)")


def test_every_stop_of_the_keyboard_is_seen(browser, page):
    browser.open(page)
    browser.press("Tab", 9)
    assert seen(browser, "focus()") == ["A", True]
    browser.press("Enter", 13)  # the skip link leads past the other links
    stops = []
    for _ in range(60):
        browser.press("Tab", 9)
        tag, visible = seen(browser, "focus()")
        if tag == "BODY":
            break
        assert visible, (tag, browser.run("document.activeElement.className"))
        stops.append(tag)
    assert {*stops} == {"DIV", "BUTTON", "SUMMARY", "PRE"}


def test_a_heading_sorts(browser, page):
    browser.open(page)
    browser.run("document.querySelectorAll('.sortable button')[3].focus()")
    names = "[...document.querySelectorAll('.sortable tbody .name')].map((each) => each.textContent)"
    before = browser.run(names)
    browser.press(" ", 32)
    assert browser.run("document.querySelectorAll('.sortable th')[3].getAttribute('aria-sort')") == "descending"
    after = browser.run(names)
    assert after != before
    assert sorted(after) == sorted(before)


def test_nothing_moves(browser, page):
    browser.open(page)
    assert seen(browser, "moving()") == 0


def test_paper_shows_what_a_click_would(browser, page, tmp_path):
    browser.open(page, 1280, "dark")
    browser.run(
        "addEventListener('beforeprint', () => { opened = document.querySelectorAll('details[open]').length; })"
    )
    paper = keep("report.pdf", tmp_path)
    browser.print(paper)
    assert len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes())) >= 3
    assert browser.run("opened === document.querySelectorAll('details').length")
    assert browser.run("document.querySelectorAll('details[open]').length") == 0
    browser.open(page, 700, "dark")  # A4 between its margins
    browser.media("print")
    assert seen(browser, "overflow()") == [0, []]
    assert seen(browser, "cut()") == []
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert seen(browser, "contrast(4.5)") == []
