"""Training lines, and the files they are written to."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import DataError

if TYPE_CHECKING:
    from evalkit.contracts import Sample
    from evalkit.task import Task

Line = Mapping[str, Any]
IMAGE, VIDEO = "<image>", "<video>"


@dataclass(frozen=True)
class Converted:
    """One data set, not yet written.

    Attributes:
        name: of the set and its file. root: folder that the lines' image paths count from.
        lines: one a sample. max_tiles: its bound of tiles, or None for the recipe's.
        notes: what was found while the lines were read; complete behind the last one.
        annotation: a published file of such lines, which is named as it lies; `lines` is then empty.
    """

    name: str
    root: Path
    lines: Iterable[Line]
    max_tiles: int | None = None
    notes: list[str] = field(default_factory=list)
    annotation: Path | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """One data set that was written: its name, file and number of samples, and what was found in it."""

    name: str
    path: Path
    samples: int
    notes: tuple[str, ...] = ()


def line(name: str, question: str, answer: str, images: Sequence[str] = (), video: str | None = None) -> Line:
    """One question and its answer in InternVL's form."""
    return conversation(name, [(question, answer)], images, video)


def conversation(
    name: str, turns: Iterable[tuple[str, str]], images: Sequence[str] = (), video: str | None = None
) -> Line:
    """Questions and their answers in InternVL's form."""
    content: dict[str, Any] = {"id": name}
    if video is not None:
        content["video"] = video
    elif images:
        content["image"] = images[0] if len(images) == 1 else list(images)
    spoken = [
        {"from": speaker, "value": text}
        for turn in turns
        for speaker, text in zip(("human", "gpt"), turn, strict=True)
    ]
    return {**content, "conversations": spoken}


def task_lines(
    task: Task, split: str, root: Path, answer: Callable[[Sample], str], folder: Path | None = None
) -> Iterator[Line]:
    """Lines of a task's samples: its own prompts, its own images.

    Args:
        task, split, root: whose samples are read.
        answer: the text to be learned.
        folder: where images are written that are not files of their own; None if all are.
    """
    for sample in task.samples(split, root):
        images = [image_path(image, root, folder, sample.id) for image in sample.images]
        yield line(sample.id, prompt(task, sample), answer(sample), images)


def prompt(task: Task, sample: Sample) -> str:
    """The task's question, with an `<image>` line for each image if it has none."""
    text = task.request(sample).messages[-1].text
    return text if IMAGE in text else f"{IMAGE}\n" * len(sample.images) + text


def image_path(image: Any, root: Path, folder: Path | None, name: str) -> str:
    """An image's path from `root`; written to `folder` first if it is not a file."""
    if folder is None:
        (path,) = image.paths()
        return relative(Path(path), root)
    target = folder / f"{image.digest()}.png"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".tmp")
        image.open().save(temporary, "PNG")
        temporary.replace(target)
    return target.name


def relative(path: Path, root: Path) -> str:
    """A path as it is written in a line: from `root`, with forward slashes."""
    return Path(os.path.relpath(path, root)).as_posix()


def thousandths(box: Sequence[float], size: Sequence[float]) -> str:
    """`<box>[[x1, y1, x2, y2]]</box>` of a box in pixels, 0..1000 of the whole image, rounded."""
    width, height = size
    scaled = [round(1000 * edge / side) for edge, side in zip(box, (width, height) * 2, strict=True)]
    return f"<box>[[{', '.join(str(min(1000, max(0, edge))) for edge in scaled)}]]</box>"


def write(output: Path, sets: Iterable[Converted], repeat: int = 1) -> list[Written]:
    """Writes `<set>.jsonl` for each set and one `meta.json`; whole or not at all.

    Args:
        repeat: how often an epoch sees each sample.

    Raises:
        DataError: a set is empty.
    """
    output.mkdir(parents=True, exist_ok=True)
    meta: dict[str, Any] = {}
    written = []
    for found in sets:
        path = found.annotation or output / f"{found.name}.jsonl"
        count = _write_lines(path, found.lines) if found.annotation is None else _count_lines(path)
        if not count:
            raise DataError(f"{found.root}: {found.name} holds no sample to learn from")
        inside = found.root.resolve().is_relative_to(output.resolve())
        meta[found.name] = {
            "root": relative(found.root, output) if inside else str(found.root.resolve()),
            "annotation": path.name if found.annotation is None else str(path.resolve()),
            "data_augment": False,
            "repeat_time": repeat,
            "length": count,
            **({} if found.max_tiles is None else {"max_dynamic_patch": found.max_tiles}),
        }
        written.append(Written(found.name, path, count, tuple(found.notes)))
    temporary = output / "meta.json.tmp"
    temporary.write_text(json.dumps(meta, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(output / "meta.json")
    return written


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for text in file if text.strip())


def _write_lines(path: Path, lines: Iterable[Line]) -> int:
    temporary = path.with_suffix(".tmp")
    count = 0
    with temporary.open("w", encoding="utf-8") as file:
        for content in lines:
            file.write(json.dumps(content, ensure_ascii=False) + "\n")
            count += 1
    temporary.replace(path)
    return count
