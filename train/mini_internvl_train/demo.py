"""`python -m mini_internvl_train.demo`: adapt the embedded model to one domain, and see what changed.

Draws training pictures of a domain and of general worlds, evaluates the embedded model on both, trains the
packaged recipe `demo`, evaluates again, and compares. Training pictures and evaluation pictures are disjoint
by construction (`evalkit_tasks.miniatures.drawing.reserved`).
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from evalkit_tasks.miniatures import drawing
from mini_internvl_train.convert.lines import Converted, Line, write
from mini_internvl_train.tiny.lessons import LESSONS, Lesson

MODEL = "mini-internvl-tiny"
DOMAIN = "rsvqa-lr"
GENERAL = ("mmbench", "chartqa", "docvqa")
LESSONS_OF_DOMAIN, LESSONS_OF_GENERAL = 400, 100
EVALUATED = (DOMAIN, "mmbench")
SEED = 2024
"""Of the drawn training pictures; the embedded model was trained with others."""


def draw_data(folder: Path) -> None:
    """Writes `domain/meta.json` and `general/meta.json` with their lines and pictures."""
    domain, general = folder / "domain", folder / "general"
    write(domain, [_world(DOMAIN, LESSONS_OF_DOMAIN, domain)])
    write(general, [_world(name, LESSONS_OF_GENERAL, general) for name in GENERAL])


def _world(name: str, lessons: int, folder: Path) -> Converted:
    set_name = name.replace("-", "_")
    pictures = folder / f"{set_name}_pictures"
    return Converted(set_name, pictures, _lines(name, lessons, pictures))


def _lines(name: str, count: int, pictures: Path) -> Iterator[Line]:
    pictures.mkdir(parents=True, exist_ok=True)
    rng = drawing.generator(f"demo/{name}", SEED, training=True)
    for number in range(count):
        lesson: Lesson = LESSONS[name](rng, True)
        names = [f"{number}-{place}.png" for place in range(len(lesson.views))]
        for view, picture in zip(lesson.views, names, strict=True):
            view.image.save(pictures / picture)
        turns = []
        for place, ask in enumerate(lesson.asks):
            turns.append({"from": "human", "value": ask.text if place else f"{lesson.opening}{ask.text}"})
            turns.append({"from": "gpt", "value": ask.answer})
        yield {"id": number, "image": names[0] if len(names) == 1 else names, "conversations": turns}


def demonstrate(folder: Path) -> int:
    """Runs the demonstration; returns the status of `evalkit compare` (1: something became worse).

    Args:
        folder: of data, checkpoints and runs; one that is there is made anew.
    """
    from evalkit.cli.main import invoke
    from mini_internvl_train.loop import train
    from mini_internvl_train.recipe import read_recipe

    shutil.rmtree(folder, ignore_errors=True)
    print(f"== drawing pictures of {DOMAIN} and, as general data, of {', '.join(GENERAL)}")
    draw_data(folder / "data")
    runs = str(folder / "runs")
    asked = [flag for task in EVALUATED for flag in ("-t", task)]
    common = ["--split", "miniature", "-o", runs, "-q"]
    print(f"\n== {MODEL} before: {', '.join(EVALUATED)}")
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
    final = train(recipe, say=print)
    print(f"\n== {MODEL} after")
    if status := invoke(["run", "-m", MODEL, "--checkpoint", str(final), *asked, *common]):
        return status
    print("\n== evalkit compare: the domain should rise and the general benchmark hold", flush=True)
    return invoke(["compare", MODEL, f"{MODEL}@{final.name}", "-o", runs])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m mini_internvl_train.demo", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"))
    return demonstrate(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    raise SystemExit(main())
