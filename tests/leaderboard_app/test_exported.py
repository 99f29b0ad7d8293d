"""The board as static files, opened from the disk in a real browser."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from hostile_runs import TEXTS, make_hostile_tree
from html_tables import uneven
from written_sweep import write_sweep

from evalkit.comparison.runs import LoadedRun, Pairs, pair
from evalkit_leaderboard.cli import leaderboard
from evalkit_leaderboard.exported import board, samples
from evalkit_leaderboard.exported.board import export_board
from evalkit_leaderboard.exported.scripts import Writer
from evalkit_leaderboard.index import Index
from evalkit_leaderboard.matrix import row_key
from evalkit_leaderboard.serving import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE = 90_000
TASK, MODELS = "dior-rsvg@miniature", ("good", "worse", "tuned@step-300")


def index_of(root: Path, cache: Path) -> Index:
    found = Index([root], cache)
    found.refresh(patience=0)
    return found


@pytest.fixture(scope="module")
def few(real_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs of one task, two of them checkpoints of one training; two of another; a log and a sweep."""
    root = tmp_path_factory.mktemp("few") / "runs"
    places = [f"{name}/{TASK}" for name in (*MODELS, "tuned@step-200")]
    for place in (*places, "good/rsvqa-lr@miniature", "worse/rsvqa-lr@miniature"):
        shutil.copytree(real_tree / place, root / place)
    shutil.copytree(real_tree.parent / "checkpoints", root.parent / "checkpoints")
    write_sweep(root.parent / "checkpoints" / "ratio")
    return root


@pytest.fixture(scope="module")
def exported(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their export with images, by the command line."""
    folder = tmp_path_factory.mktemp("exported") / "site"
    arguments = ["--runs", str(few), "--training", str(few.parent / "checkpoints"), "--export", str(folder)]
    told = CliRunner().invoke(leaderboard, [*arguments, "--with-images"])
    assert "6 runs" in told.output, told.output
    for page in folder.rglob("*.html"):
        assert not uneven(page.read_text(encoding="utf-8")), page
    return folder


def test_without_images_there_are_none_and_an_earlier_export_is_replaced(
    few: Path, exported: Path, tmp_path: Path
) -> None:
    runs = index_of(few, tmp_path / "cache").runs
    folder = Path(shutil.copytree(exported, tmp_path / "site"))
    assert list((folder / "images").glob("*.jpg"))
    (folder / ".git").mkdir()
    (folder / "CNAME").write_text("board.example")
    key, _ = runs.popitem()
    export_board(runs, folder, "board")
    assert not list((folder / "images").glob("*"))
    assert not (folder / "data" / f"answers-{key}.js").exists()
    assert (folder / ".git").is_dir() and (folder / "CNAME").is_file()


@pytest.mark.parametrize("kind", ["file", "foreign"])
def test_nothing_else_is_written_over(kind: str, few: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("my own file")
    else:
        place.mkdir()
        (place / "index.html").write_text("my own page")
    told = CliRunner().invoke(leaderboard, ["--runs", str(few), "--export", str(place)])
    assert told.exit_code and "--export" in f"{told.output} {told.exception}"
    assert (place if kind == "file" else place / "index.html").read_text().startswith("my own")
    assert not (place / "data").exists()


def test_two_runs_are_compared_once_for_the_board_and_their_models(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    compared: list[tuple[str, str]] = []

    def counted(base: LoadedRun, new: LoadedRun, allow: Sequence[str]) -> Pairs:
        compared.append((base.path.parts[-3], new.path.parts[-3]))
        return pair(base, new, allow)

    monkeypatch.setattr(sys.modules["evalkit.comparison.compare"], "pair", counted)
    export_board(index_of(few, tmp_path / "index").runs, tmp_path / "site", "board")
    assert compared.count(("good", "worse")) + compared.count(("worse", "good")) == 2  # two tasks


def test_no_path_of_this_machine_is_published(exported: Path, few: Path) -> None:
    for path in exported.rglob("*"):
        if path.suffix in (".js", ".html", ".csv", ".md", ".tex"):
            assert str(few.parent) not in path.read_text(), path


def test_samples_take_the_room_there_is(few: Path, tmp_path: Path) -> None:
    """Those on which runs disagree come first, the same ones of every run."""
    found = index_of(few, tmp_path / "cache").runs
    runs = {key: run for key, run in found.items() if f"{run.task}@{run.split}" == TASK}
    everything, part = Writer(tmp_path / "all"), Writer(tmp_path / "part")
    whole = samples.export_samples(runs, 0, 10**7, everything, False)
    some = samples.export_samples(runs, 0, 20_000, part, False)
    assert 0 < min(some.values()) == max(some.values()) < min(whole.values())
    assert part.bytes < 25_000 < everything.bytes


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """An export of runs with hostile texts, and keys of some whose samples hold all texts."""
    root = tmp_path_factory.mktemp("hostile")
    make_hostile_tree(root / "runs")
    found = index_of(root / "runs", root / "cache").runs
    runs = {key: run for key, run in found.items() if run.model.endswith("@step-100")}
    assert len(runs) == 2 * len(TEXTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(board, "VERSION", TEXTS[1])
        export_board(runs, root / "site", TEXTS[0], with_images=True)
    wanted = {f"model-{place}" for place in range(0, len(TEXTS), 4)}  # a sample holds four of the texts
    keys = [k for k, run in runs.items() if run.task == "rsvqa-lr" and run.folder.parts[-3] in wanted]
    return root / "site", keys


def test_long_texts_make_no_large_board(hostile: tuple[Path, list[str]]) -> None:
    assert sum(path.stat().st_size for path in hostile[0].rglob("*") if path.is_file()) < 1e6


class Visitor:
    """A page opened from the disk, and what it asked for."""

    def __init__(self, browser: Browser, folder: Path, **settings: Any) -> None:
        self.page: Page = browser.new_context(**settings).new_page()
        self.page.set_default_timeout(PATIENCE)
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda line: line.type == "error" and self.problems.append(line.text))
        self.page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        self.page.on("request", lambda asked: self._asked(asked.url, folder.absolute().as_uri()))
        self._address = (folder / "index.html").absolute().as_uri()

    def open(self, place: str) -> None:
        """A page of the board."""
        self.page.goto("about:blank")
        self.page.goto(f"{self._address}#{place}")
        self.page.wait_for_selector("main > section:not([hidden]) h1")

    def _asked(self, url: str, own: str) -> None:
        if not url.startswith((own, "data:", "about:")):
            self.problems.append(f"asked for {url}")


def cells(page: Page, table: str) -> list[list[str]]:
    """The first line of every cell of a table's body that is shown."""
    script = "t => [...t.tBodies[0].rows].filter(r => r.offsetParent).map(r => [...r.cells]"
    lines: list[list[str]] = page.locator(table).first.evaluate(
        f"{script}.filter(c => c.offsetParent).map(c => c.innerText.split('\\n')[0].trim()))"
    )
    return lines


def texts(page: Page, table: str, place: int = 0) -> list[list[str]]:
    """All words of every cell of a table's body, whether it is folded away or not."""
    script = "t => [...t.tBodies[0].rows].map(r => [...r.cells].map(c => c.textContent.trim()))"
    lines: list[list[str]] = page.locator(table).nth(place).evaluate(script)
    return lines


@pytest.mark.browser
@pytest.mark.slow
def test_the_numbers_are_those_of_the_app(browser: Browser, few: Path, exported: Path) -> None:
    seen = Visitor(browser, exported)
    with served([few], few.parent / "checkpoints", patience=PATIENCE / 1000) as site:
        app = browser.new_context().new_page()
        app.set_default_timeout(PATIENCE)
        runs = index_of(few, few.parent / "cache").runs
        keys = {run.model: key for key, run in runs.items() if f"{run.task}@{run.split}" == TASK}
        base, new = keys["good"], keys["worse"]
        app.goto(f"{site}/compare?target={TASK}&base={base}&new={new}")
        app.wait_for_selector("table[aria-label=verdicts] tbody tr")
        for place in (f"compare/{base}/{new}", f"compare/{new}/{base}"):
            seen.open(place)
            seen.page.wait_for_selector("#comparison table tbody tr")
            assert cells(seen.page, "#comparison table") == cells(app, "table[aria-label=verdicts]")
            assert "Base: good" in seen.page.inner_text("#comparison")
        app.goto(f"{site}/?rows=Measured")
        app.wait_for_selector("table[aria-label='models by tasks'] tbody tr")
        mine = {line[0]: [text for text in line[1:] if text] for line in cells(app, "table.ek")}
        models = [row_key(name, name) for name in ("good", "worse")]
        app.goto(f"{site}/compare?target=all+tasks&base={models[0]}&new={models[1]}")
        app.wait_for_selector("table[aria-label='gained, kept, forgotten'] tbody tr")
        over_all = texts(app, "table[aria-label='gained, kept, forgotten']")
        app.goto(f"{site}/training?target={TASK}&metric=acc_0.5")
        app.wait_for_selector("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg")
        app.wait_for_function("document.querySelectorAll('table.ek').length === 3")
        curves = [texts(app, "table.ek", place) for place in range(3)]
    seen.open(f"compare/{models[1]}/{models[0]}")
    seen.page.wait_for_selector("#comparison table tbody tr")
    compared = texts(seen.page, "#comparison table")
    assert len(compared) == len(over_all) == 2
    for (name, *_, change, reach, _, verdict), (task, other) in zip(
        sorted(compared), sorted(over_all), strict=True
    ):
        assert task.split("@")[0] in name and change.lstrip("+-") in other and verdict.split(":")[0] in other
        assert reach.strip("[]").split(", ")[1].lstrip("+-") in other
    for place, mine_too in zip(
        (f"{TASK}: acc_0.5", "Sweep ratio, rsvqa-lr@miniature: average", "Training log: loss"),
        curves,
        strict=True,
    ):
        seen.open(f"training/{quote(place, safe='')}")
        seen.page.wait_for_selector("article:not([hidden]) .chart svg")
        assert texts(seen.page, "section:not([hidden]) article:not([hidden]) table") == mine_too
    seen.open("overview")
    theirs = {line[0]: [text for text in line[1:] if text] for line in cells(seen.page, ".models table")}
    assert theirs == mine and len(mine) == len(MODELS)
    seen.open(f"compare/{base}")
    assert "good" in seen.page.inner_text("#comparison .says")
    assert not seen.problems


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_every_page_works_from_the_disk(scheme: Any, width: int, browser: Browser, exported: Path) -> None:
    seen = Visitor(browser, exported, color_scheme=scheme, viewport={"width": width, "height": 800})
    for place in ("overview", "tasks", "compare", "samples", "training", "runs"):
        seen.open(place)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    ground = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(16, 21, 28)")
    seen.open("overview")
    assert "Mini-InternVL-4B" not in [line[0] for line in cells(seen.page, ".models table")]
    seen.page.get_by_label("published rows", exact=True).first.check()
    assert len(cells(seen.page, ".models table")) > len(MODELS)
    seen.page.get_by_label("published rows", exact=True).first.uncheck()
    seen.page.get_by_role("button", name="Model", exact=True).first.click()
    names = [line[0] for line in cells(seen.page, ".models table")]
    assert names == sorted(MODELS)
    seen.open("compare")
    seen.page.wait_for_selector("#comparison svg")
    assert "By each task's headline" in seen.page.inner_text("#comparison")
    run = seen.page.locator(f"#base optgroup[label='{TASK}'] option").first.get_attribute("value")
    seen.page.locator("#base").select_option(run)
    seen.page.get_by_role("link", name="Samples on which the two differ", exact=True).click()
    seen.page.get_by_text("sample 1 of").wait_for()
    seen.page.wait_for_function("document.querySelector('#sample img').naturalWidth > 300")
    assert "Answer of" in seen.page.inner_text("#sample")
    first = seen.page.url
    seen.page.keyboard.press("ArrowRight")
    seen.page.get_by_text("sample 2 of").wait_for()
    assert seen.page.url != first
    for place, said in (("samples/nobody", "Run nobody is not"), ("compare/nobody/x", "Run nobody is not"),
                        ("tasks/none", "none is not in this export"),
                        ("training/none", "none is not in this export")):  # fmt: skip
        seen.open(place)
        seen.page.get_by_text(said).wait_for()
    assert not seen.problems


@pytest.mark.browser
@pytest.mark.slow
def test_hostile_texts_stay_texts(browser: Browser, hostile: tuple[Path, list[str]]) -> None:
    folder, keys = hostile
    seen = Visitor(browser, folder)
    places = ["overview", "tasks", "compare", "runs", "samples/<script>", "tasks/%00"]
    for place in [*places, *(f"samples/{key}" for key in keys)]:
        seen.open(place)
        seen.page.wait_for_function("document.querySelector('section:not([hidden])').innerText.length > 20")
        assert seen.page.evaluate("window.hacked") is None
        strange = seen.page.locator("iframe, svg[onload], [onerror], [onload], a[href^='javascript' i]")
        assert strange.count() == 0 and seen.page.locator("body script, body style").count() == 0
    assert "<script>window.hacked=1</script>" in seen.page.inner_text("header")
    assert len(keys) == 3 and not seen.problems
