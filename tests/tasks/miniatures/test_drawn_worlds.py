"""The miniatures that the embedded model is measured on: repeatable, readable, and apart from training."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from random import Random

import pytest

from evalkit import registry
from evalkit.task import MINIATURE
from evalkit_tasks.miniatures import cameras, charts, clips, drawing, pages, questions, scenes, tiles

TASKS = ("mmbench", "chartqa", "docvqa", "rsvqa-lr", "dior-rsvg", "bdd-x", "drivelm")


def _draw(name: str, folder: Path) -> Path:
    import_module(f"evalkit_tasks.miniatures.{name.replace('-', '_')}").draw(folder)
    return folder


def _contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("name", TASKS)
def test_a_miniature_is_the_same_every_time_and_its_task_reads_it(name: str, tmp_path: Path) -> None:
    folder = _draw(name, tmp_path / "one")
    assert _contents(folder) == _contents(_draw(name, tmp_path / "two"))
    task = registry.task(name)
    samples = list(task.samples(MINIATURE, folder))
    assert len(samples) >= 100
    assert len({s.cluster for s in samples}) >= 40
    assert len({s.id for s in samples}) == len(samples)
    for sample in samples[:: len(samples) // 7]:
        sizes = {image.open().size for image in sample.images}
        assert sizes == ({(2688, 896)} if name == "drivelm" else {(drawing.SIDE, drawing.SIDE)})
        assert sample.target is not None


def test_answers_are_balanced(tmp_path: Path) -> None:
    folder = _draw("rsvqa-lr", tmp_path)
    answers = Counter(
        (s.tags["type"], s.target) for s in registry.task("rsvqa-lr").samples(MINIATURE, folder)
    )
    for kind in ("presence", "comp"):
        yes, no = answers[kind, "yes"], answers[kind, "no"]
        assert 0.35 < yes / (yes + no) < 0.65


def test_every_drivelm_tag_is_asked_about(tmp_path: Path) -> None:
    folder = _draw("drivelm", tmp_path)
    tags = Counter(s.tags["tag"] for s in registry.task("drivelm").samples(MINIATURE, folder))
    assert set(tags) == {"accuracy", "gpt", "language", "match"}


WORLDS: dict[str, Callable[[Random, bool], object]] = {
    "quartered": scenes.quartered,
    "overhead": scenes.overhead,
    "chart": charts.chart,
    "page": pages.page,
    "tile": tiles.tile,
    "clip": clips.clip,
    "frame": cameras.frame,
}


def _facts(world: object) -> object:
    if isinstance(world, scenes.Scene):
        return sorted((t.shape, t.colour, t.box) for t in world.things)
    if isinstance(world, charts.Chart):
        return world.bars
    if isinstance(world, pages.Page):
        return list(world.entries)
    if isinstance(world, tiles.Tile):
        return (world.area, list(world.cells))
    if isinstance(world, clips.Clip):
        return (world.speed, world.angle, world.reason, world.start, world.tone)
    assert isinstance(world, cameras.Frame)
    return list(world.objects)


@pytest.mark.parametrize("name", WORLDS)
def test_training_never_shows_what_a_miniature_may_show(name: str) -> None:
    rng = Random(name)
    for _ in range(60):
        assert not drawing.reserved(_facts(WORLDS[name](rng, True)))
        assert drawing.reserved(_facts(WORLDS[name](rng, False)))


def test_seed_spaces_are_separate() -> None:
    assert drawing.generator("pages", 0).random() != drawing.generator("pages", 0, training=True).random()


def test_a_box_answer_is_in_thousandths() -> None:
    assert questions.box_answer("a red star", (16, 32, 64, 80)) == (
        "<ref>a red star</ref><box>[[125, 250, 500, 625]]</box>"
    )


def test_labels_lie_where_the_objects_do() -> None:
    rng = Random(3)
    for _ in range(20):
        scene = scenes.overhead(rng, True)
        view = scene.view()
        for thing, region in zip(scene.things, view.regions, strict=True):
            x1, y1, x2, y2 = region.box
            middle = view.image.getpixel((int(x1 + x2) // 2, int(y1 + y2) // 2))
            assert middle == drawing.COLOURS[thing.colour]
