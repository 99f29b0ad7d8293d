"""The app in a real browser: every page, filters, shared addresses, samples with boxes, hostile contents."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote

import pytest
from answerer import Answerer
from hostile_runs import TEXTS, make_hostile_tree

import evalkit
from evalkit import compare, registry
from evalkit.data.locate import locate
from evalkit.errors import NotComparableError
from evalkit.task import MINIATURE
from evalkit_leaderboard.index import Index
from evalkit_leaderboard.serving import free_port, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize

pytestmark = [pytest.mark.browser, pytest.mark.slow]

Scheme = Literal["light", "dark"]
LAPTOP: ViewportSize = {"width": 1366, "height": 768}
PHONE: ViewportSize = {"width": 390, "height": 844}
WIDE: ViewportSize = {"width": 1440, "height": 900}
PAGES = ("", "task", "compare", "samples", "training", "runs")
ROWS = "table.ek tbody tr"
#: Milliseconds to wait for what must come; a busy machine takes long.
PATIENCE = 90_000


@pytest.fixture(scope="module")
def root(real_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the real tree that grows, with runs that stand apart."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(real_tree.parent, folder, dirs_exist_ok=True)
    root = folder / "runs"
    mmbench = registry.task("mmbench")
    samples = list(mmbench.samples(MINIATURE, locate(mmbench, MINIATURE)))
    for name, every in {
        "straight": 1000,
        "other": 3,
        "turning": 10,
    }.items():  # one rotation of a question at a time
        model = Answerer(name, "mmbench", samples, every)
        evalkit.run(model, "mmbench", split=MINIATURE, output=root, quiet=True)
    _copied(root, "good/rsvqa-lr", "test", nonstandard={"max_tiles": 2})
    _copied(root, "good/drivelm", "sample")
    counts = {"expected": 320, "answered": 320, "errors": 0, "published": 4329}
    _copied(root, "straight/mmbench", "dev", status="excerpt", counts=counts)
    for path in root.glob("worse/rsvqa-lr@miniature/2*/*.json"):
        path.write_text(path.read_text().replace("dtype:fp32", "dtype:bf16"))
    newer = _copied(root, "good/rsvqa-lr", MINIATURE)
    manifest, summary = (json.loads((newer / f"{name}.json").read_text()) for name in ("manifest", "summary"))
    summary["metrics"]["average"]["value"] = "99.5"
    (newer / "manifest.json").write_text(json.dumps({**manifest, "created": "2099-01-01T00:00:00+00:00"}))
    (newer / "summary.json").write_text(json.dumps(summary))
    return root


def _copied(root: Path, place: str, split: str, **changes: Any) -> Path:
    """A run on the miniature as one of another split, its summary changed; its name ends as no other does."""
    (old,) = root.glob(f"{place}@miniature/2*")
    new = Path(shutil.copytree(old, root / f"{place}@{split}" / f"{old.name}x"))
    summary = json.loads((new / "summary.json").read_text())
    (new / "summary.json").write_text(json.dumps({**summary, "split": split, **changes}))
    return new


@pytest.fixture(scope="module")
def site(root: Path) -> Iterator[str]:
    """Address of the app over the real tree."""
    with served([root], root.parent / "checkpoints", patience=PATIENCE / 1000) as address:
        yield address


@pytest.fixture(scope="module")
def contexts(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Contexts by size and scheme, each made once: a browser that has been here keeps the app's scripts."""
    made: dict[str, BrowserContext] = {}

    def context(size: ViewportSize = LAPTOP, scheme: Scheme = "light") -> BrowserContext:
        name = f"{size} {scheme}"
        if name not in made:
            made[name] = browser.new_context(viewport=size, color_scheme=scheme, accept_downloads=True)
        return made[name]

    yield context
    for one in made.values():
        one.close()


class Visit:
    """A page of the app, and what went wrong in it."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.site = address.partition("?")[0].rpartition("/")[0]
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
        self.page.get_by_label("Search models", exact=True).fill(text)
        self.page.get_by_label("Search models", exact=True).press("Enter")

    def _asked(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.foreign.append(url)


#: Fetched by `make axe` from npm; it is no part of the package.
AXE = Path(os.environ.get("AXE", Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"))

Open = Callable[..., "Visit"]


@pytest.fixture
def visit(contexts: Callable[..., BrowserContext], site: str) -> Iterator[Open]:
    """Opens a page of the app, the overview on a laptop unless told otherwise."""
    made: list[Visit] = []

    def opened(address: str = "", size: ViewportSize = LAPTOP) -> Visit:
        made.append(Visit(contexts(size), f"{site}/{address}"))
        return made[-1]

    yield opened
    for one in made:
        one.page.close()


class Look(NamedTuple):
    """What stands on a page at a width, the size of its picture, and what axe-core says where it is here."""

    page: str
    size: ViewportSize
    body: str
    width: int
    picture: int
    serious: list[str]


class Tour(NamedTuple):
    """All pages of the app in one scheme."""

    scheme: Scheme
    looks: list[Look]
    ground: str
    problems: list[str]


@pytest.fixture(scope="module", params=["light", "dark"])
def tour(request: pytest.FixtureRequest, contexts: Callable[..., BrowserContext], site: str) -> Tour:
    """Every page, wide and on a phone."""
    seen, looks = Visit(contexts(WIDE, request.param), site), []
    script = AXE.read_text(encoding="utf-8") if AXE.is_file() else ""
    for name in PAGES:
        seen.page.set_viewport_size(WIDE)
        seen.open(f"{site}/{name}")
        seen.page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
        if script:
            seen.page.evaluate(script)
        for size in (WIDE, PHONE):
            seen.page.set_viewport_size(size)
            seen.settle()
            width = seen.page.evaluate("document.documentElement.scrollWidth")
            picture = len(seen.page.screenshot())
            found = _serious(seen.page) if script else []
            looks.append(Look(name or "overview", size, seen.page.inner_text("body"), width, picture, found))
    ground = seen.page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    seen.page.close()
    return Tour(request.param, looks, ground, [*seen.problems, *seen.foreign])


def _serious(page: Page) -> list[str]:
    report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {one['nodes'][0]['html']}"
        for one in report["violations"]
        if one["impact"] in ("serious", "critical") or one["id"] == "heading-order"
    ]


def test_every_page_opens(tour: Tour) -> None:
    assert len(tour.looks) == 2 * len(PAGES)
    for look in tour.looks:
        assert "Traceback" not in look.body and "cannot be shown" not in look.body
        assert look.width <= look.size["width"] + 1, f"{look.page} is {look.width} wide"
        assert look.picture > 5_000
    assert tour.ground == ("rgb(255, 255, 255)" if tour.scheme == "light" else "rgb(16, 21, 28)")
    assert not tour.problems


def test_axe_finds_nothing_serious_on_any_page(tour: Tour) -> None:
    if not AXE.is_file():
        pytest.skip("no axe-core: `make axe` fetches it from npm, or set AXE to its axe.min.js")
    found = [
        f"{look.page}, {look.size['width']} wide: {what}" for look in tour.looks for what in look.serious
    ]
    assert not found, "\n".join(found)


def test_icons_are_no_words_of_a_name_and_keys_reach_controls_in_the_order_of_the_page(visit: Open) -> None:
    page = visit().page
    page.locator("table.ek").first.wait_for()
    assert page.get_by_role("button", name="Rows", exact=True).count() == 1
    name = "(e => e.getAttribute('aria-label') || e.innerText || e.tagName)(document.activeElement)"
    reached: list[list[str]] = []
    for _ in range(16):
        page.keyboard.press("Tab")
        reached.append(str(page.evaluate(name)).splitlines())
    wanted = ("Overview", "Runs", "Baseline: none", "Search models", "Rows", "Columns", "Order", "Model")
    controls = [lines for lines in reached if len(lines) < 6]  # not the frames that hold them
    places = [next(place for place, lines in enumerate(controls) if one in lines) for one in wanted]
    assert places == sorted(places), reached


def test_a_header_sorts_and_comes_into_view(visit: Open) -> None:
    seen = visit(size=PHONE)
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


def test_filter_sort_and_share(visit: Open) -> None:
    seen = visit()
    seen.search("tuned")
    seen.expect_rows(["tuned@step-300"])
    seen.page.get_by_role("button", name="Rows", exact=True).click()
    seen.page.get_by_text("Show every checkpoint").click()
    best_first = ["tuned@step-300", "tuned@step-200", "tuned@step-100"]
    seen.expect_rows(best_first)
    seen.page.keyboard.press("Escape")
    seen.page.get_by_role("button", name="Order", exact=True).click()
    seen.page.get_by_label("Sort by", exact=True).click()
    seen.page.get_by_role("option", name="name", exact=True).click()
    seen.expect_rows(best_first[::-1])
    address = seen.page.url
    assert "search=tuned" in address and "sort=name" in address and "checkpoints=1" in address
    visit(address.partition("/?")[2] and f"?{address.partition('/?')[2]}", PHONE).expect_rows(
        best_first[::-1]
    )


def test_download(visit: Open, tmp_path: Path) -> None:
    seen = visit()
    seen.page.get_by_role("button", name="Download", exact=True).click()
    with seen.page.expect_download() as waiting:
        seen.page.get_by_role("button", name="CSV", exact=True).click()
    waiting.value.save_as(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"good", "worse"} <= {row["model"] for row in rows}  # as shown: the published rows are folded


def test_from_a_figure_to_its_sample_with_boxes(visit: Open) -> None:
    seen = visit()
    seen.page.locator(ROWS, has_text="worse").locator("td a", has_text=".").last.click()
    seen.page.wait_for_url("**/samples?run=*")
    seen.page.wait_for_selector(".ek-image img")
    seen.settle()
    image = seen.page.locator(".ek-image img")
    assert image.evaluate("image => image.naturalWidth") >= 600
    legend = seen.page.get_by_text("target: green, solid")
    assert "prediction: yellow" in legend.inner_text()
    seen.page.get_by_text("sample 1 of").wait_for()
    first = image.get_attribute("src")
    seen.page.wait_for_function("!!document.ekKeys")
    seen.page.keyboard.press("ArrowRight")
    seen.page.get_by_text("sample 2 of").wait_for()
    seen.page.wait_for_function("first => document.querySelector('.ek-image img').src !== first", arg=first)
    seen.page.get_by_label(
        "Score", exact=True
    ).focus()  # a select box leaves the arrows alone while it is closed
    seen.page.keyboard.press("ArrowLeft")
    seen.page.get_by_text("sample 1 of").wait_for()
    fit = image.evaluate("image => image.clientWidth")
    seen.page.get_by_text("400%").click()
    seen.page.wait_for_function(
        "fit => document.querySelector('.ek-image img').clientWidth > 2 * fit", arg=fit
    )
    assert not seen.problems


def test_a_sample_is_chosen_from_the_list(visit: Open) -> None:
    seen = visit("samples")
    grid = seen.page.get_by_test_id("stDataFrame")
    grid.scroll_into_view_if_needed()
    grid.click(position={"x": 15, "y": 35 + 35 * 3 + 17})
    seen.page.get_by_text("sample 4 of").wait_for()


def test_a_flipped_sample_is_opened(visit: Open) -> None:
    seen = visit("compare?target=dior-rsvg@miniature")
    seen.page.get_by_role("link", name="Open it with its images and both answers →", exact=True).click()
    seen.page.wait_for_url("**/samples?run=*&sample=*")
    seen.page.wait_for_selector(".ek-image img")
    assert not seen.problems


def test_the_papers_table_takes_the_chosen_split_and_each_run_stands_under_its_own_mark(
    visit: Open, root: Path
) -> None:
    """One of its runs is of another setting, one is broken, one may not be compared with the others."""
    seen = visit("task?task=rsvqa-lr&split=test")
    printed, apart = (seen.page.locator(f"table[aria-label='Table 11: remote sensing{more}']")
                      for more in ("", ", not comparable"))  # fmt: skip
    for split, mine, other in (
        ("test", "non-standard", "miniature"),
        ("miniature", "miniature", "non-standard"),
    ):
        if split != "test":
            seen.page.get_by_label("Split", exact=True).click()
            seen.page.get_by_role("option", name="miniature", exact=True).click()
            apart.get_by_text("worse").wait_for()
            seen.settle()
        apart.wait_for()
        assert "SkyEyeGPT" in printed.inner_text() and "good" not in printed.inner_text()
        assert not [row for row in printed.locator("tbody tr").all_inner_texts() if row.startswith("part")]
        (row,) = [row for row in apart.locator("tbody tr").all_inner_texts() if row.startswith("good")]
        assert mine in row and other not in row and "99.5" not in row
    assert "1 broken runs of rsvqa-lr are left out" in seen.page.inner_text("body")
    base, new = (next(root.glob(f"{name}/rsvqa-lr@miniature/2*[!x]")) for name in ("good", "worse"))
    with pytest.raises(NotComparableError) as refused:
        compare(base, new)
    said = str(refused.value).partition(": ")[2]
    assert "dtype (fp32 | bf16) differs" in said
    assert f"no: {said}" in seen.page.locator("table[aria-label=signatures]").inner_text()
    keys = {run.path: key for key, run in _index(root).runs.items()}
    seen.open(f"{seen.site}/compare?target=rsvqa-lr@miniature&base={keys[str(base)]}&new={keys[str(new)]}")
    assert (
        said in seen.page.inner_text("body") and not seen.page.locator("table[aria-label=verdicts]").count()
    )


def test_a_mark_stands_in_its_cell_and_a_part_enters_no_average(visit: Open) -> None:
    seen = visit("?benchmarks=all&rows=Measured")
    for model, column, mark in (("good", "drivelm@sample", "sample"), ("straight", "mmbench@dev", "excerpt")):
        row = seen.page.locator(ROWS, has=seen.page.locator(f"th[title={model}]"))
        row.wait_for()
        marked = [cell for cell in row.locator("td").all() if mark in cell.inner_text()]
        assert marked and all((cell.get_attribute("title") or "").startswith(column) for cell in marked)
        assert "benchmarks" not in row.inner_text(), "no Avg. Score of a part"


def test_a_circular_question_shows_the_rotation_that_failed_and_a_run_that_goes_is_not_replaced(
    visit: Open, root: Path
) -> None:
    keys = {run.model: key for key, run in _index(root).runs.items()
            if (run.task, run.split) == ("mmbench", MINIATURE)}  # fmt: skip
    seen = visit(f"compare?target=mmbench@miniature&base={keys['straight']}&new={keys['turning']}")
    quotes = seen.page.locator(".ek-quotes").first
    quotes.wait_for()
    target, base, new = (quotes.locator("pre").nth(place).inner_text() for place in range(3))
    assert target == base != new
    assert "Rotation 1000002" in seen.page.inner_text("body")
    (folder,) = root.glob("turning/mmbench@miniature/2*")
    folder.rename(root.parent / "elsewhere")
    try:
        seen.page.get_by_text(f"Run {keys['turning']} is not under").wait_for()
        seen.page.locator("table[aria-label=verdicts]").wait_for(state="detached")
    finally:
        (root.parent / "elsewhere").rename(folder)
    for address, said in (
        ("samples?run=doesnotexist", "Run doesnotexist is not under"),
        (f"samples?run={keys['straight']}&sample=nobody", "Sample nobody is not in this run"),
    ):
        seen.open(f"{seen.site}/{address}")
        seen.page.get_by_text(said).wait_for()
        assert not seen.page.locator(".ek-quotes, .ek-image").count()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_the_server_ends_when_told_though_a_page_is_open(
    contexts: Callable[..., BrowserContext], tmp_path: Path
) -> None:
    from playwright.sync_api import Error

    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "evalkit", "leaderboard", "--runs", str(tmp_path), "--port", str(port)]
    page, process = contexts().new_page(), subprocess.Popen(command)
    end = time.monotonic() + PATIENCE / 1000
    try:
        while process.poll() is None and time.monotonic() < end:
            try:
                page.goto(f"http://127.0.0.1:{port}")
                break
            except Error:  # nobody answers yet
                time.sleep(0.2)
        page.wait_for_selector("[data-testid=stHeading]")
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        page.close()


def _index(root: Path) -> Index:
    index = Index([root], root.parent / "own-cache")
    index.refresh(patience=0)
    return index


def test_new_runs_appear_without_a_restart(visit: Open, root: Path) -> None:
    seen = visit()
    assert "newcomer" not in seen.page.inner_text("body")
    (old,) = (root / "good" / "rsvqa-lr@miniature").glob("2*[!x]")
    new = root / "newcomer" / "rsvqa-lr@miniature" / old.name
    new.parent.mkdir(parents=True)
    scratch = root.parent / "newcomer"
    shutil.copytree(old, scratch)
    for name in ("manifest.json", "summary.json"):
        (scratch / name).write_text((scratch / name).read_text().replace('"good"', '"newcomer"'))
    scratch.rename(new)
    seen.page.get_by_text("newcomer").first.wait_for()


@pytest.fixture(scope="module")
def hostile_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of hostile texts."""
    folder = tmp_path_factory.mktemp("hostile") / "runs"
    make_hostile_tree(folder)
    return folder


def test_hostile_texts_are_only_text(contexts: Callable[..., BrowserContext], hostile_root: Path) -> None:
    index = Index([hostile_root], hostile_root.parent / "cache")
    index.refresh(patience=0)
    assert len(index.runs) == 4 * len(TEXTS)
    assert all(run.status == "complete" for run in index.runs.values())
    first = {run.folder.parts[-3]: key for key, run in index.runs.items() if run.task == "rsvqa-lr"}
    with served([hostile_root], hostile_root, patience=PATIENCE / 1000) as site:
        seen = Visit(contexts(), f"{site}/?checkpoints=1&rankall=1")
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
        seen.page.close()


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
