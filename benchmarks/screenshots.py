"""The screenshots of docs/leaderboard.md, of real runs: `python benchmarks/screenshots.py [--folder DIR]`.

Makes the runs first, unless DIR holds them (about eight minutes on two cores): the embedded model is trained
for the demonstration's domain, its checkpoints and the model before are evaluated on drawn miniatures, and a
short sweep is trained. The runs of the first checkpoint are made with the clock set back, so that there is
something from before last week. Then it opens the pages in a headless Chromium, light and dark, wide and on a
phone, and writes docs/images. Pages name DIR, so choose one that may be seen.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple
from unittest import mock

from PIL import Image

from evalkit.cli.main import invoke
from evalkit.pipeline import manifest
from evalkit_leaderboard.index import Index
from evalkit_leaderboard.matrix import build
from evalkit_leaderboard.serving import served
from mini_internvl_train.demo import MODEL, draw_data

if TYPE_CHECKING:
    from playwright.sync_api import Page, ViewportSize

IMAGES = Path(__file__).resolve().parents[1] / "docs/images"
DOMAIN, GENERAL = "gmai-mmbench", "mmbench"
#: Evaluated before and after the training; the others show what a run looks like, on the model before.
TASKS, OTHERS = (DOMAIN, GENERAL, "rsvqa-lr"), ("drivelm", "dior-rsvg")
STEPS = (80, 160, 240)
SIZES: dict[str, ViewportSize] = {
    "wide": {"width": 1440, "height": 900},
    "phone": {"width": 390, "height": 844},
}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
#: Days by which the first checkpoint is older than the rest.
OLDER = 9


def make() -> None:
    """Data, trainings and runs below the working folder; a training that was broken off goes on."""
    if not Path("data").is_dir():
        draw_data(Path("data"))
    data = ["--set", "data.meta=data/domain/meta.json", "--set", "data.general_meta=data/general/meta.json"]
    steps = ["--set", f"steps.max_steps={STEPS[-1]}", "--set", f"checkpoints.every={STEPS[0]}"]
    call("train", "demo", *data, *steps, "--set", "checkpoints.keep=3", "--set", "output=checkpoints/tuned")
    with set_back(OLDER):
        evaluate(TASKS)
        evaluate(TASKS, STEPS[0])
    for step in STEPS[1:]:
        evaluate(TASKS, step)
    evaluate(OTHERS)
    short = ["--set", "steps.max_steps=null", "--set", "steps.epochs=1", "--set", "checkpoints.every=1000"]
    judged = [
        "--eval-task",
        DOMAIN,
        "--eval-task",
        GENERAL,
        "--eval-split",
        "miniature",
        "--runs",
        "sweep-runs",
    ]
    call(
        "train",
        "sweep",
        "demo",
        "--vary",
        "data.share=0.05,0.1,0.2",
        *data,
        *short,
        *judged,
        "-o",
        "checkpoints/share",
    )


def call(*words: str) -> None:
    """An evalkit command; what it has made already is kept."""
    print("evalkit", *words, flush=True)
    if status := invoke(list(words)):
        raise SystemExit(f"evalkit {' '.join(words)}: status {status}")


def evaluate(tasks: tuple[str, ...], step: int | None = None) -> None:
    """The model before the training, or a checkpoint, on miniatures."""
    asked = [word for task in tasks for word in ("-t", task)]
    checkpoint = [] if step is None else ["--checkpoint", f"checkpoints/tuned/step-{step:06}"]
    call("run", "-m", MODEL, *checkpoint, *asked, "--split", "miniature", "-o", "runs", "-q")


@contextmanager
def set_back(days: int) -> Iterator[None]:
    """Runs that begin in this block carry an earlier date."""

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Earlier:
            return super().now(tz) - timedelta(days=days)

    with mock.patch.object(manifest, "datetime", Earlier):
        yield


class Shot(NamedTuple):
    """A picture: its file's name, the page's address, what to scroll to, and where that shall stand then."""

    name: str
    address: str
    view: str = ""
    stands: Literal["start", "end"] = "start"
    dark_and_phone: bool = True


def shots(runs: Path) -> list[Shot]:
    """Pages that answer a question each, then two more."""
    index = Index([runs.absolute()])
    index.refresh(patience=0)
    rows = {row.model: row.key for row in build(index.runs).rows if not row.published}
    base, steps = rows.pop(MODEL), sorted(rows)
    news = "&".join(f"new={rows[name]}" for name in steps)
    wrong = next(k for k, run in index.runs.items() if run.model == MODEL and run.task == "dior-rsvg")
    over = f"compare?target=all+tasks&base={base}"
    margins = "margin=circular%3D5%2Caverage%3D5%2Coverall%3D5"
    return [
        Shot("new", f"?baseline={base}&checkpoints=1"),
        Shot("best", f"{over}&{news}", "text=The best of 3"),
        Shot("forgotten", f"{over}&new={rows[steps[-1]]}&{margins}"),
        Shot("paper", f"task?task={DOMAIN}&split=miniature", "table[aria-label$='not comparable']", "end"),
        Shot("wrong", f"samples?run={wrong}&outcome=wrong", ".ek-image", "end"),
        Shot("training", f"training?target={GENERAL}%40miniature&base={base}", dark_and_phone=False),
        Shot("sweep", "training", "text=Sweeps", dark_and_phone=False),
        Shot("runs", "runs", dark_and_phone=False),
    ]


def take(folder: Path, only: Sequence[str]) -> None:
    """Open every page, or `only` those of some names, and write its picture."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("no Chromium here: apt-get install chromium")
    runs = Path("runs")
    with served([runs], Path("checkpoints")) as site, sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for (form, size), scheme in product(SIZES.items(), SCHEMES):
            page = chrome.new_context(viewport=size, color_scheme=scheme).new_page()
            page.set_default_timeout(120_000)
            for shot in (one for one in shots(runs) if not only or one.name in only):
                if shot.dark_and_phone or (form, scheme) == ("wide", "light"):
                    page.goto(f"{site}/{shot.address}")
                    settle(page)
                    if shot.view:
                        place = f"e => e.scrollIntoView({{block: '{shot.stands}'}})"
                        page.locator(shot.view).first.evaluate(place)
                        page.wait_for_timeout(1000)
                    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                    picture.save(folder / f"{shot.name}-{form}-{scheme}.webp", quality=78, method=6)
                    print(shot.name, form, scheme, flush=True)
            page.context.close()


def settle(page: Page) -> None:
    """Wait until the page is whole: its script has run, nothing is being compared, charts are drawn."""
    page.wait_for_selector("table.ek, .ek-quotes, [data-testid=stDataFrame]", state="attached")
    page.wait_for_selector('[data-testid=stApp][data-test-script-state="notRunning"]')
    page.wait_for_function("!document.body.innerText.includes('being compared')")
    page.wait_for_function("!document.querySelector('[data-testid=stSkeleton], [data-testid=stSpinner]')")
    page.wait_for_timeout(3000)  # charts and images fade in
    page.wait_for_function("!document.body.innerText.includes('being compared')")


def main() -> None:
    """Make the runs where they are missing, then the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("screenshots"), help="of runs; made where missing"
    )
    parser.add_argument("--images", type=Path, default=IMAGES, help="where the pictures go")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="picture; repeatable")
    given = parser.parse_args()
    images = given.images.absolute()
    images.mkdir(parents=True, exist_ok=True)
    given.folder.mkdir(parents=True, exist_ok=True)
    os.environ["EVALKIT_CACHE"] = str(given.folder.absolute() / "cache")
    os.chdir(given.folder)  # the pages show these paths
    if not Path("runs").is_dir():
        make()
    take(images, given.only)


if __name__ == "__main__":
    main()
