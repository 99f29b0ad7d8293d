"""BDD-X: a clip with its questions on action, justification, speed and turning angle as turns of one sample.

So a sample is a clip, as in the paper's 26K and its ratio of general data. The evaluation asks each question
by itself. DriveGPT4's and RAG-Driver's files are conversations of this form already; their words are replaced
by those of the evaluation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalkit.contracts import Sample
from evalkit.data.images import VideoFrame
from evalkit.errors import DataError
from evalkit.files import fields, read_json_items, read_jsonl, text_of
from evalkit_tasks.driving.bdd_x import KINDS, BddX
from mini_internvl_train.convert.lines import IMAGE, VIDEO, Converted, Line, conversation, relative


def convert(root: Path, split: str, folder: Path) -> Iterator[Converted]:
    """One data set; a frame is one tile."""
    split = "test" if split == "miniature" else split
    yield Converted("bdd_x", root, _lines(root, split), 1)


def _lines(root: Path, split: str) -> Iterator[Line]:
    answers = _answers(root, split)
    task = BddX()
    clips = itertools.groupby(task.samples(split, root), key=lambda sample: sample.cluster)
    for number, (clip, samples) in enumerate(clips):
        found = list(samples)
        turns = [(task.request(sample).messages[-1].text, answers[number, sample.id]) for sample in found]
        yield _line(root, clip, found[0], turns)


def _line(root: Path, clip: str, sample: Sample, turns: list[tuple[str, str]]) -> Line:
    """The first question keeps images and past signals; the others are what they ask."""
    (first, answer), *others = turns
    rest = [(question.rpartition("\n")[2], said) for question, said in others]
    image = sample.images[0]
    if isinstance(image, VideoFrame):
        asked = first.rpartition(f"{IMAGE}\n")[2]
        video = relative(Path(image.path), root)
        return conversation(clip, [(f"{VIDEO}\n{asked}", answer), *rest], video=video)
    images = [relative(Path(image.paths()[0]), root) for image in sample.images]
    return conversation(clip, [(first, answer), *rest], images)


def _answers(root: Path, split: str) -> Mapping[tuple[int, str], str]:
    """Answers as they are written, by the clip's place and sample id."""
    names = [f"{split}.json", f"{split}.jsonl", "conversation_bddx_eval_v1.json"]
    path = next((root / name for name in names if (root / name).is_file()), None)
    if path is None:
        raise DataError(f"bdd-x: {root} holds none of {', '.join(names)}")
    found: dict[tuple[int, str], str] = {}
    items: Iterator[Any] = read_jsonl(path) if path.suffix == ".jsonl" else read_json_items(path)
    for position, item in enumerate(items):
        where = f"{path}: item {position}"
        row = fields(item, ("id", "conversations"), where)
        turns = [fields(turn, ("value",), where) for turn in row["conversations"]]
        said = [text_of(turn, "value", where) for turn in turns][1::2]
        for kind, answer in zip(KINDS.get(len(said), ()), said, strict=False):
            found[position, f"{row['id']}/{kind}"] = answer
    return found
