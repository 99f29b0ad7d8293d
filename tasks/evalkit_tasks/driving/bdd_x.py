"""BDD-X (Kim et al., ECCV 2018) as conversations: what a car does, why, and its next speed and turning angle.

Reads conversations of four question-answer turns (action, justification, speed, turning angle) or of three
whose last asks for both signals, as RAG-Driver publishes them. Each question is asked on its own, with the
clip's frames and the first question's lines on past control signals in front.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.contracts import Generation, ImageHandle, ImagePolicy, Record, Response, Sample
from evalkit.data.images import VideoFrame
from evalkit.errors import DataError
from evalkit.files import fields, id_of, read_json_items, read_jsonl, text_of
from evalkit.metrics.base import Metric, Select
from evalkit.metrics.captions import Bleu, Cider, RougeL, joined_pairs
from evalkit.metrics.control import (
    CURVATURE,
    TAUS,
    Signal,
    SignalRmse,
    ThresholdAccuracy,
    gives_curvature,
    read_signal,
    threshold_scores,
)
from evalkit.metrics.package_variants import NltkBleu, RougeScoreL
from evalkit.task import MINIATURE, DataFile, DataSource, record
from evalkit_tasks.base import PaperTask, drawn
from evalkit_tasks.general.settings import ImageFiles

#: Frames taken of a video, evenly spread.
FRAMES = 8
DESCRIPTION, JUSTIFICATION, SPEED, ANGLE, CONTROL = (
    "description",
    "justification",
    "speed",
    "angle",
    "control",
)
#: What the turns ask, by their number.
KINDS = {
    4: (DESCRIPTION, JUSTIFICATION, SPEED, ANGLE),
    3: (DESCRIPTION, JUSTIFICATION, CONTROL),
}
SIGNALS: Mapping[str, tuple[Signal, ...]] = {
    SPEED: ("speed",),
    ANGLE: ("angle",),
    CONTROL: ("speed", "angle"),
}
RAG_DRIVER = "conversation_bddx_eval_v1.json"

#: Signs that look like a minus and would be passed over, so that the number were read as positive.
_OTHER_MINUS = re.compile("(?<![0-9])[\u2212\u2013\uff0d](?=[0-9.])")
_IMAGE_LINES = re.compile(r"^(?:\s*(?:Frame\s*\d+\s*:)?\s*(?:<image>|<video>)[ \t]*\n?)+")


def _names(split: str) -> tuple[str, ...]:
    return (f"{split}.json", f"{split}.jsonl", *((RAG_DRIVER,) if split == "test" else ()))


def _file(split: str) -> DataFile:
    source = (
        "github.com/YuanJianhao508/RAG-Driver (evalcap/BDDX_gt), or conversations of that form; "
        "the clips they name are cut from the BDD100K videos (bdd-data.berkeley.edu)"
    )
    first, *others = _names(split)
    licence = "UC Berkeley: education, research and not-for-profit"
    return DataFile(first, source, licence, alternatives=tuple(others))


class BddX(PaperTask):
    """Tables 6 (captions, percent) and 7 (control signals)."""

    name = "bdd-x"
    title = "BDD-X"
    about = "Driving clips: captions of action and reason, speed and angle"
    splits = ("test", "val", "train")
    generation = Generation(max_new_tokens=100)
    image_policy = ImagePolicy(max_tiles=1)
    data_source = DataSource(
        files={split: (_file(split),) for split in ("test", "val", "train")}, draw=drawn(name)
    )

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`."""
        split = self.splits[0] if split == MINIATURE else split
        found = next((path for name in _names(split) if (path := root / name).is_file()), None)
        if found is None:
            raise DataError(f"{self.name}: {root} holds none of {', '.join(_names(split))}")
        files = ImageFiles(root)
        items = read_jsonl(found) if found.suffix == ".jsonl" else read_json_items(found)
        for position, item in enumerate(items):
            yield from _clip(item, f"{found}: item {position}", files)

    def score(self, sample: Sample, response: Response) -> Record:
        """See `Task.score`."""
        kind = sample.tags["question"]
        if kind in (DESCRIPTION, JUSTIFICATION):
            return record(sample, response, prediction=response.text)
        target: Mapping[Signal, float] = sample.target
        given = {signal: read_signal(response.text, signal, both=kind == CONTROL) for signal in target}
        scores: dict[str, float] = {}
        for signal, value in given.items():
            scores |= threshold_scores(signal, value, target[signal])
        return record(
            sample,
            response,
            prediction=given,
            scores=scores,
            unparsed=None in given.values(),
            data=sample.data,
        )

    @property
    def exact_scores(self) -> Sequence[Sequence[str]]:
        """A signal within the narrowest threshold; a caption is never right or wrong."""
        return [["speed_a_0.1"], ["angle_a_0.1"]]

    def metrics(self) -> Sequence[Metric]:
        """The columns of Table 6, those of Table 7, and the captions' scores by other packages."""
        captions = ((DESCRIPTION,), (JUSTIFICATION,), (DESCRIPTION, JUSTIFICATION))
        found: list[Metric] = []
        variants: list[Metric] = []
        for name, kinds in zip((DESCRIPTION, JUSTIFICATION, "full"), captions, strict=True):
            pairs = joined_pairs([_asks(kind) for kind in kinds], _clip_of)
            found += [
                Cider(f"{name}_cider", pairs=pairs),
                Bleu(f"{name}_bleu_4", 4, pairs=pairs),
                RougeL(f"{name}_rouge_l", pairs=pairs),
            ]
            variants += [
                NltkBleu(f"{name}_bleu_4.nltk", 4, pairs=pairs),
                RougeScoreL(f"{name}_rouge_l.rouge_score", pairs=pairs),
            ]
        for signal in SIGNALS[CONTROL]:
            found += [SignalRmse(signal), *(ThresholdAccuracy(signal, tau) for tau in TAUS)]
        return [*found, *variants]


def _asks(kind: str) -> Select:
    return lambda r: r.tags["question"] == kind


def _clip_of(r: Record) -> str:
    return r.cluster


def _clip(item: object, where: str, files: ImageFiles) -> Iterator[Sample]:
    """The samples of one conversation."""
    row = fields(item, ("id", "conversations"), where)
    clip, turns = id_of(row, "id", where), _turns(row["conversations"], where)
    kinds = KINDS.get(len(turns))
    if kinds is None:
        raise DataError(f"{where}: {len(turns)} question-answer turns, not 3 or 4: not a BDD-X conversation")
    images = _images(row, files, where)
    first = _question(turns[0][0])
    history = first[: first.rfind("\n") + 1]
    frames = "".join(f"Frame{number}: <image>\n" for number in range(1, len(images) + 1))
    for kind, (asked, answer) in zip(kinds, turns, strict=True):
        question = _question(asked)
        text = frames + (question if kind == DESCRIPTION else history + question)
        target, data = _target(kind, question, answer, where)
        yield Sample(f"{clip}/{kind}", (text,), images, target, clip, {"question": kind}, data)


def _turns(conversation: object, where: str) -> list[tuple[str, str]]:
    """Questions with their answers."""
    if not isinstance(conversation, list) or len(conversation) % 2:
        raise DataError(f"{where}: conversations must be a list of questions and answers by turns")
    texts = [text_of(fields(turn, ("value",), where), "value", where) for turn in conversation]
    return list(zip(texts[::2], texts[1::2], strict=True))


def _question(text: str) -> str:
    """A question without its image marks."""
    return _IMAGE_LINES.sub("", text)


def _images(row: Mapping[str, Any], files: ImageFiles, where: str) -> tuple[ImageHandle, ...]:
    if "image" in row:
        names = [row["image"]] if isinstance(row["image"], str) else row["image"]
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise DataError(f"{where}: image must be a list of image paths")
        return tuple(files.find(name) for name in names)
    if isinstance(video := row.get("video"), str):
        return tuple(VideoFrame(str(files.root / video), position, FRAMES) for position in range(FRAMES))
    raise DataError(f"{where}: neither image nor video: not a BDD-X conversation")


def _target(kind: str, question: str, answer: str, where: str) -> tuple[Any, dict[str, Any]]:
    """What the scorer compares with: a caption, or the signals by name; a curvature is not an angle."""
    if kind not in SIGNALS:
        return answer, {}
    asked = question.rpartition("\n")[2].lower()
    curvature = gives_curvature(answer) or ("curvature" in asked and "angle" not in asked)
    signals = [signal for signal in SIGNALS[kind] if not (curvature and signal == "angle")]
    if unread := _OTHER_MINUS.search(answer):
        raise DataError(
            f"{where}: reference answer {answer!r} holds U+{ord(unread[0]):04X} before a number, which is no "
            "minus sign to the scorer: write -"
        )
    target = {signal: read_signal(answer, signal, both=kind == CONTROL) for signal in signals}
    if None in target.values():
        raise DataError(f"{where}: reference answer {answer!r} holds no {' and '.join(signals)}")
    return target, {CURVATURE: True} if curvature else {}
