"""BDD-X: frames of a clip and its questions on action, justification, speed and turning angle.

Each question is a separate sample, as in evaluation, so that no answer depends on another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalkit.contracts import Sample
from evalkit.data.images import VideoFrame
from evalkit.errors import DataError
from evalkit.files import fields, read_json_items, read_jsonl, text_of
from evalkit_tasks.driving.bdd_x import KINDS, BddX
from mini_internvl_train.convert.lines import IMAGE, VIDEO, Converted, Line, line, relative


def convert(root: Path, split: str, folder: Path) -> Iterator[Converted]:
    """One data set; a frame is one tile."""
    split = "test" if split == "miniature" else split
    yield Converted("bdd_x", root, _lines(root, split), 1)


def _lines(root: Path, split: str) -> Iterator[Line]:
    answers = _answers(root, split)
    task = BddX()
    for sample in task.samples(split, root):
        question = task.request(sample).messages[-1].text
        yield _line(root, sample, question, answers[sample.id])


def _line(root: Path, sample: Sample, question: str, answer: str) -> Line:
    first = sample.images[0]
    if isinstance(first, VideoFrame):
        asked = question.rpartition(f"{IMAGE}\n")[2]
        return line(sample.id, f"{VIDEO}\n{asked}", answer, video=relative(Path(first.path), root))
    images = [relative(Path(image.paths()[0]), root) for image in sample.images]
    if len(images) == 1:
        return line(sample.id, question, answer, images)
    return {**line(sample.id, question, answer, images), "image": images}


def _answers(root: Path, split: str) -> Mapping[str, str]:
    """Answers as they are written, by sample id."""
    names = [f"{split}.json", f"{split}.jsonl", "conversation_bddx_eval_v1.json"]
    path = next((root / name for name in names if (root / name).is_file()), None)
    if path is None:
        raise DataError(f"bdd-x: {root} holds none of {', '.join(names)}")
    found: dict[str, str] = {}
    items: Iterator[Any] = read_jsonl(path) if path.suffix == ".jsonl" else read_json_items(path)
    for position, item in enumerate(items):
        where = f"{path}: item {position}"
        row = fields(item, ("id", "conversations"), where)
        turns = [fields(turn, ("value",), where) for turn in row["conversations"]]
        said = [text_of(turn, "value", where) for turn in turns][1::2]
        for kind, answer in zip(KINDS.get(len(said), ()), said, strict=False):
            found[f"{row['id']}/{kind}"] = answer
    return found
