"""The app in a real browser: every page, filters, shared addresses, samples with boxes, hostile contents."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hostile_runs import TEXTS, make_hostile_tree

from evalkit_leaderboard.index import Index
from evalkit_leaderboard.serving import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LAPTOP, PHONE = {"width": 1366, "height": 768}, {"width": 390, "height": 844}
WIDE = {"width": 1440, "height": 900}
PAGES = ("", "task", "compare", "samples", "training", "runs")
ROWS = "table.ek tbody tr"
#: Milliseconds to wait for what must come; a busy machine takes long.
PATIENCE = 90_000


@pytest.fixture(scope="module")
def root(real_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the real tree that grows."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(real_tree.parent, folder, dirs_exist_ok=True)
    return folder / "runs"


@pytest.fixture(scope="module")
def site(root: Path) -> Iterator[str]:
    """Address of the app over the real tree."""
    with served([root], root.parent / "checkpoints", patience=PATIENCE / 1000) as address:
        yield address


class Visit:
    """A page of the app, and what went wrong in it."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.problems: list[str] = []
        self.foreign: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        self.page.on("request", lambda request: self._asked(request.url))
        self.open(address)

    def open(self, address: str) -> None:
        """Go there and wait until all is shown."""
        self.page.goto(address)
        self.page.wait_for_selector("[data-testid=stHeading]")
        self.settle()

    def settle(self) -> None:
        """Wait until the script has run; it begins an instant after what asked for it."""
        self.page.wait_for_timeout(150)
        self.page.wait_for_selector('[data-testid=stApp][data-test-script-state="notRunning"]')

    def expect_rows(self, names: list[str]) -> None:
        """Wait until the first table has these rows."""
        rows = (
            "[...document.querySelectorAll('table.ek')].slice(0, 1).flatMap(table => "
            "[...table.querySelectorAll('tbody tr')].map(row => row.querySelector('th').title))"
        )
        self.page.wait_for_function(f"names => JSON.stringify({rows}) === JSON.stringify(names)", arg=names)
        self.settle()

    def search(self, text: str) -> None:
        """Search models."""
        self.page.get_by_label("Search models").fill(text)
        self.page.get_by_label("Search models").press("Enter")

    def _asked(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.foreign.append(url)


@pytest.fixture
def visit(browser: Browser, site: str) -> Iterator[Visit]:
    """The overview on a laptop."""
    context = browser.new_context(viewport=LAPTOP, accept_downloads=True)
    yield Visit(context, site)
    context.close()


@pytest.mark.parametrize(("size", "scheme"), [(LAPTOP, "light"), (PHONE, "dark")], ids=["laptop", "phone"])
def test_every_page_opens(
    browser: Browser, site: str, size: dict[str, int], scheme: str, tmp_path: Path
) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    seen = Visit(context, site)
    for name in PAGES:
        seen.open(f"{site}/{name}")
        body = seen.page.inner_text("body")
        assert "Traceback" not in body and "cannot be shown" not in body
        width = seen.page.evaluate("document.documentElement.scrollWidth")
        assert width <= size["width"] + 1, f"{name or 'overview'} is {width} wide"
        shot = tmp_path / f"{name or 'overview'}.png"
        seen.page.screenshot(path=shot)
        assert shot.stat().st_size > 5_000
    ground = seen.page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(16, 21, 28)")
    assert not seen.problems and not seen.foreign
    context.close()


#: Fetched by `make axe` from npm; it is no part of the package.
AXE = Path(os.environ.get("AXE", Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(browser: Browser, site: str, scheme: str) -> None:
    if not AXE.is_file():
        pytest.skip("no axe-core: `make axe` fetches it from npm, or set AXE to its axe.min.js")
    context = browser.new_context(viewport=LAPTOP, color_scheme=scheme)  # type: ignore[arg-type]
    seen, script = Visit(context, site), AXE.read_text(encoding="utf-8")
    found = []
    for name in PAGES:
        seen.open(f"{site}/{name}")
        seen.page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
        seen.page.evaluate(script)
        for size in (WIDE, PHONE):
            seen.page.set_viewport_size(size)  # type: ignore[arg-type]
            seen.settle()
            report = seen.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            found += [
                f"{name or 'overview'}, {size['width']} wide: {one['id']}: {one['nodes'][0]['html']}"
                for one in report["violations"]
                if one["impact"] in ("serious", "critical") or one["id"] == "heading-order"
            ]
    assert not found, "\n".join(found)
    seen.page.set_viewport_size(LAPTOP)  # type: ignore[arg-type]
    seen.open(site)
    assert seen.page.get_by_role("button", name="Rows", exact=True).count() == 1, "icons are no words"
    context.close()


def test_a_header_sorts_and_comes_into_view(browser: Browser, site: str) -> None:
    context = browser.new_context(viewport=PHONE)
    seen = Visit(context, site)
    seen.page.wait_for_function("!!document.ekPressed")
    seen.page.locator("button[data-sort^='dior-rsvg']").first.dispatch_event("click")
    seen.page.wait_for_selector("th[aria-sort=descending] button[data-sort^='dior-rsvg']")
    seen.page.wait_for_function(
        "(() => { const head = document.querySelector('th[aria-sort]').getBoundingClientRect();"
        "return head.left >= 0 && head.right <= innerWidth; })()"
    )
    assert "sort=dior-rsvg" in seen.page.url
    seen.page.locator("button[data-sort^='dior-rsvg']").first.dispatch_event("click")
    seen.page.wait_for_selector("th[aria-sort=ascending] button[data-sort^='dior-rsvg']")
    assert not seen.problems
    context.close()


def test_filter_sort_and_share(browser: Browser, visit: Visit, site: str) -> None:
    visit.search("tuned")
    visit.expect_rows(["tuned@step-300"])
    visit.page.get_by_role("button", name="Rows").click()
    visit.page.get_by_text("Show every checkpoint").click()
    best_first = ["tuned@step-300", "tuned@step-200", "tuned@step-100"]
    visit.expect_rows(best_first)
    visit.page.keyboard.press("Escape")
    visit.page.get_by_role("button", name="Order").click()
    visit.page.get_by_label("Sort by").click()
    visit.page.get_by_role("option", name="name", exact=True).click()
    visit.expect_rows(best_first[::-1])
    address = visit.page.url
    assert "search=tuned" in address and "sort=name" in address and "checkpoints=1" in address
    context = browser.new_context(viewport=PHONE)
    Visit(context, address).expect_rows(best_first[::-1])
    context.close()


def test_download(visit: Visit, tmp_path: Path) -> None:
    with visit.page.expect_download() as waiting:
        visit.page.get_by_role("button", name="CSV").click()
    waiting.value.save_as(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"good", "worse"} <= {row["model"] for row in rows}  # as shown: the published rows are folded


def test_from_a_figure_to_its_sample_with_boxes(visit: Visit) -> None:
    visit.page.locator(ROWS, has_text="worse").locator("td a", has_text=".").last.click()
    visit.page.wait_for_url("**/samples?run=*")
    visit.page.wait_for_selector(".ek-image img")
    visit.settle()
    image = visit.page.locator(".ek-image img")
    assert image.evaluate("image => image.naturalWidth") >= 600
    legend = visit.page.get_by_text("target: green, solid")
    assert "prediction: yellow" in legend.inner_text()
    visit.page.get_by_text("sample 1 of").wait_for()
    first = image.get_attribute("src")
    visit.page.keyboard.press("ArrowRight")
    visit.page.get_by_text("sample 2 of").wait_for()
    visit.page.wait_for_function("first => document.querySelector('.ek-image img').src !== first", arg=first)
    visit.page.get_by_label("Score").focus()  # a select box leaves the arrows alone while it is closed
    visit.page.keyboard.press("ArrowLeft")
    visit.page.get_by_text("sample 1 of").wait_for()
    fit = image.evaluate("image => image.clientWidth")
    visit.page.get_by_text("400%").click()
    visit.page.wait_for_function(
        "fit => document.querySelector('.ek-image img').clientWidth > 2 * fit", arg=fit
    )
    assert not visit.problems


def test_a_sample_is_chosen_from_the_list(visit: Visit, site: str) -> None:
    visit.open(f"{site}/samples")
    grid = visit.page.get_by_test_id("stDataFrame")
    grid.scroll_into_view_if_needed()
    grid.click(position={"x": 15, "y": 35 + 35 * 3 + 17})
    visit.page.get_by_text("sample 4 of").wait_for()


def test_a_flipped_sample_is_opened(visit: Visit, site: str) -> None:
    visit.open(f"{site}/compare?target=dior-rsvg@miniature")
    visit.page.get_by_role("link", name="Open it with its images").click()
    visit.page.wait_for_url("**/samples?run=*&sample=*")
    visit.page.wait_for_selector(".ek-image img")
    assert not visit.problems


def test_new_runs_appear_without_a_restart(visit: Visit, root: Path) -> None:
    assert "newcomer" not in visit.page.inner_text("body")
    (old,) = (root / "good" / "rsvqa-lr@miniature").glob("2*")
    new = root / "newcomer" / "rsvqa-lr@miniature" / old.name
    new.parent.mkdir(parents=True)
    scratch = root.parent / "newcomer"
    shutil.copytree(old, scratch)
    for name in ("manifest.json", "summary.json"):
        (scratch / name).write_text((scratch / name).read_text().replace('"good"', '"newcomer"'))
    scratch.rename(new)
    visit.page.get_by_text("newcomer").first.wait_for()


@pytest.fixture(scope="module")
def hostile_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of hostile texts."""
    folder = tmp_path_factory.mktemp("hostile") / "runs"
    make_hostile_tree(folder)
    return folder


def test_hostile_texts_are_only_text(browser: Browser, hostile_root: Path) -> None:
    index = Index([hostile_root], hostile_root.parent / "cache")
    index.refresh(patience=0)
    assert len(index.runs) == 4 * len(TEXTS)
    assert all(run.status == "complete" for run in index.runs.values())
    first = {run.folder.parts[-3]: key for key, run in index.runs.items() if run.task == "rsvqa-lr"}
    with served([hostile_root], hostile_root, patience=PATIENCE / 1000) as site:
        context = browser.new_context(viewport=LAPTOP)
        seen = Visit(context, f"{site}/?checkpoints=1&rankall=1")
        seen.page.get_by_text("<script>window.hacked=1</script>").first.wait_for()
        _is_harmless(seen)
        for query in (
            "task?task=rsvqa-lr",
            "compare?target=rsvqa-lr@miniature",
            "training?changes=1",
            "runs",
        ):
            seen.open(f"{site}/{query}")
            _is_harmless(seen)
        for place in range(0, len(TEXTS), 4):  # a sample holds four of the texts
            seen.open(f"{site}/samples?run={first[f'model-{place}']}")
            _is_harmless(seen)
        for name in (TEXTS[0], TEXTS[5]):
            seen.open(f"{site}/task?task={quote(name)}&sort={quote(name)}")
            _is_harmless(seen)
        seen.open(f"{site}/samples?run=..%2F..%2Fetc&sample=%3Cscript%3E&tag.type=%00")
        _is_harmless(seen)
        context.close()


def _is_harmless(seen: Visit) -> None:
    """Nothing ran, nothing was fetched, no element came from a text, nothing failed."""
    page = seen.page
    for chart in page.locator("[data-testid=stVegaLiteChart]").all()[:2]:
        chart.hover()
    page.wait_for_timeout(100)
    assert page.evaluate("window.hacked") is None
    assert not seen.problems and not seen.foreign, (seen.problems, seen.foreign)
    assert page.locator("iframe, img[src=x], [onerror], [onload], a[href^='javascript' i]").count() == 0
    for box in page.locator(".stHtml").all():
        assert box.locator("script").count() == 0
    assert page.locator("[data-testid=stHeading]").first.is_visible()
    body = page.inner_text("body")
    assert "Traceback" not in body and "cannot be shown" not in body
    assert "root:x:0" not in body
