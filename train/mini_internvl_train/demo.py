"""`python -m mini_internvl_train.demo`: adapt the embedded model to one domain, and see what changed.

Draws training images of a domain and of general worlds, evaluates the embedded model on both, trains the
packaged recipe `demo`, evaluates again, and compares. Training images and evaluation images are disjoint
by construction (`evalkit_tasks.miniatures.drawing.reserved`).
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from evalkit_tasks.general.choices import vlmevalkit_prompt
from evalkit_tasks.miniatures import drawing, gmai_mmbench
from evalkit_tasks.miniatures.questions import Asked
from mini_internvl_train.convert.lines import Converted, Line, line, write
from mini_internvl_train.lessons import LESSONS, Lesson

MODEL = "mini-internvl-tiny"
DOMAIN = "gmai-mmbench"
#: Lessons of each general world.
GENERAL = {"mmbench": 250, "chartqa": 80, "docvqa": 120}
SCANS = 1500
HEADLINES = {DOMAIN: "overall", "mmbench": "circular"}
SEED = 2024
"""Of the drawn training images; the embedded model was trained with others."""


def draw_data(folder: Path) -> None:
    """Writes `domain/meta.json` and `general/meta.json` with their lines and images."""
    domain, general = folder / "domain", folder / "general"
    images = domain / "scans"
    write(domain, [Converted("scans", images, _scans(SCANS, images))])
    write(general, [_world(name, lessons, general) for name, lessons in GENERAL.items()])


def _scans(count: int, images: Path) -> Iterator[Line]:
    """Findings in scans: an option's text, which the protocol reduces to its letter, or several letters."""
    images.mkdir(parents=True, exist_ok=True)
    rng = drawing.generator(f"demo/{DOMAIN}", SEED, training=True)
    for number in range(count):
        scan = gmai_mmbench.scan(rng, gmai_mmbench.MARKS[number % 4], training=True)
        scan.image().save(images / f"{number}.png")
        asked = scan.asked(rng)
        right = asked.options["ABCD".index(asked.answer)]
        yield line(f"{number}", _question(asked), right, [f"{number}.png"])
        if number % 4 == 1:
            several = scan.several(rng)
            yield line(f"{number}-several", _question(several), several.answer, [f"{number}.png"])


def _question(asked: Asked) -> str:
    options = dict(zip("ABCDE", asked.options, strict=False))
    return f"<image>\n{vlmevalkit_prompt(asked.text, '', options)}"


def _world(name: str, lessons: int, folder: Path) -> Converted:
    set_name = name.replace("-", "_")
    images = folder / f"{set_name}_pictures"
    return Converted(set_name, images, _lines(name, lessons, images))


def _lines(name: str, count: int, images: Path) -> Iterator[Line]:
    """A line for each question, which sees no other question, as in evaluation."""
    images.mkdir(parents=True, exist_ok=True)
    rng = drawing.generator(f"demo/{name}", SEED, training=True)
    for number in range(count):
        lesson: Lesson = LESSONS[name](rng, True)
        names = [f"{number}-{place}.png" for place in range(len(lesson.views))]
        for view, image in zip(lesson.views, names, strict=True):
            view.image.save(images / image)
        for place, ask in enumerate(lesson.asks):
            yield line(f"{number}-{place}", f"{lesson.opening}{ask.text}", ask.answer, names)


def demonstrate(folder: Path) -> int:
    """Runs the demonstration; returns 1 if a score became worse or the domain's did not rise.

    Args:
        folder: of data, checkpoints and runs; an existing one is replaced.
    """
    from evalkit.cli.main import invoke
    from mini_internvl_train.fine_tuning import train
    from mini_internvl_train.recipe import read_recipe

    shutil.rmtree(folder, ignore_errors=True)
    print(f"== drawing images of {DOMAIN} and, as general data, of {', '.join(GENERAL)}")
    draw_data(folder / "data")
    runs = str(folder / "runs")
    asked = [flag for task in HEADLINES for flag in ("-t", task)]
    common = ["--split", "miniature", "-o", runs, "-q"]
    print(f"\n== {MODEL} before: {', '.join(HEADLINES)}")
    if status := invoke(["run", "-m", MODEL, *asked, *common]):
        return status
    print("\n== evalkit train demo", flush=True)
    recipe = read_recipe(
        "demo",
        {
            "output": str(folder / "checkpoints"),
            "data.meta": str(folder / "data/domain/meta.json"),
            "data.general_meta": str(folder / "data/general/meta.json"),
        },
    )
    final = train(recipe, say=partial(print, flush=True))
    print(f"\n== {MODEL} after")
    if status := invoke(["run", "-m", MODEL, "--checkpoint", str(final), *asked, *common]):
        return status
    print("\n== evalkit compare: the domain should rise and the general benchmark hold", flush=True)
    status = invoke(["compare", MODEL, f"{recipe.name}@{final.name}", "-o", runs])
    return status or summarise(runs, f"{recipe.name}@{final.name}")


def summarise(runs: str, adapted: str) -> int:
    """Prints the headlines before and after; 1 where the domain's did not rise beyond noise."""
    import evalkit

    print()
    rose = False
    for result in evalkit.compare(MODEL, adapted, output=runs).metrics:
        if HEADLINES.get(result.key.task) == result.name:
            found = result.difference
            print(f"{result.key.task} {result.name}: {found.base:.1f} -> {found.new:.1f}, {result.verdict}")
            rose |= result.key.task == DOMAIN and result.verdict == "improved"
    if not rose:
        print(f"{DOMAIN} did not rise: the demonstration failed")
    return 0 if rose else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m mini_internvl_train.demo", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"))
    return demonstrate(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    raise SystemExit(main())
