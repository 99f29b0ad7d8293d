"""InternVL's training files: conversation JSONL and the meta JSON that lists them, read as published.

A line is `{id, image | video (optional), width/height (advisory), conversations: [{from, value}]}`. A bad
line is an error with file and line; it is never replaced by another sample.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from evalkit.data import strict_json
from evalkit.doors import cause
from mini_internvl.images import MAX_TILES
from mini_internvl_train.errors import TrainingDataError
from mini_internvl_train.line_forms import internvl_line
from mini_internvl_train.recipe import MAX_FRAMES

logger = logging.getLogger(__name__)

_SPACE = re.compile(r"[ \t\r\n]*")

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


KEYS = (
    *("root", "annotation", "repeat_time", "max_dynamic_patch", "data_augment", "length"),
    *("frames", "augment"),
)
"""Keys of a meta file's entry; `length` is informational: lines are counted."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message: `role` is user, assistant or system."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training sample.

    Attributes:
        id: `<data set>/<line id or number>`.
        turns: alternating from user, an optional system message first; ends with the assistant.
        images: image paths in the order of their `<image>` marks. video: path of a video, or None.
        clip: (start, end) seconds of the video, or None for all of it.
        max_tiles: bound of the data set, or None for the recipe's.
        frames: of a video by the data set, or None for the recipe's.
        augment: whether images are re-encoded as JPEG at random quality (data_augment).
        as_is: whether the recipe's `augment` leaves the images alone.
        where: file and line.
    """

    id: str
    turns: tuple[Turn, ...]
    images: tuple[str, ...] = ()
    video: str | None = None
    clip: tuple[float, float] | None = None
    max_tiles: int | None = None
    frames: int | None = None
    augment: bool = False
    as_is: bool = False
    where: str = ""


@dataclass(frozen=True, slots=True)
class DataSet:
    """One entry of a meta file."""

    name: str
    root: Path
    annotation: Path
    repeat_time: float = 1.0
    data_augment: bool = False
    max_dynamic_patch: int | None = None
    frames: int | None = None
    augment: bool = True

    def fingerprint(self) -> str:
        """Content hash of the annotation file with the entry's settings (16 hexadecimal digits)."""
        settings = [self.name, self.repeat_time, self.data_augment, self.max_dynamic_patch]
        digest = hashlib.sha256(json.dumps([*settings, self.frames, self.augment]).encode())
        digest.update(self.annotation.read_bytes())
        return digest.hexdigest()[:16]


@dataclass(slots=True)
class BadLines:
    """Lines skipped under `skip_bad`."""

    messages: list[str] = field(default_factory=list)

    def add(self, error: TrainingDataError) -> None:
        """Note one line."""
        self.messages.append(str(error))


def read_meta(path: str | Path) -> list[DataSet]:
    """Data sets of a meta JSON, in its order.

    Relative paths are resolved from the meta file's folder, then from the current folder.

    Raises:
        TrainingDataError: not such a file, or an entry without root or annotation, or a wrong repeat_time.
    """
    path = Path(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=partial(_unique, path))
    except FileNotFoundError:
        raise TrainingDataError(f"{path}: meta file missing") from None
    except TrainingDataError:
        raise
    except Exception as error:
        raise TrainingDataError(f"{path}: not a meta JSON ({cause(error)})") from None
    if not isinstance(raw, dict) or not raw:
        raise TrainingDataError(f"{path}: a meta file is an object of data sets by name")
    return [_data_set(path, name, entry) for name, entry in raw.items()]


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names differ; json would keep the last of two data sets of one name."""
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise TrainingDataError(f"{path}: {twice!r} occurs twice; rename one")
    return dict(pairs)


def _data_set(path: Path, name: str, entry: Any) -> DataSet:
    where = f"{path}: data set {name!r}"
    if not isinstance(entry, dict) or "annotation" not in entry or "root" not in entry:
        raise TrainingDataError(f"{where}: needs root and annotation")
    if unknown := [key for key in entry if key not in KEYS]:
        close = difflib.get_close_matches(unknown[0], KEYS, n=1)
        logger.warning(
            "%s: %r is not read%s", where, unknown[0], f"; did you mean {close[0]!r}?" if close else ""
        )
    repeat = entry.get("repeat_time", 1)
    if isinstance(repeat, bool) or not isinstance(repeat, (int, float)) or not 0 <= repeat < math.inf:
        raise TrainingDataError(f"{where}: repeat_time {repeat!r} is not a number from 0")
    if repeat > 1 and repeat != int(repeat):
        raise TrainingDataError(f"{where}: repeat_time {repeat!r} above 1 must be whole")
    annotation = _located(path, str(entry["annotation"]))
    if not annotation.is_file():
        raise TrainingDataError(
            f"{where}: annotation {entry['annotation']} missing, in {path.parent} and in the current folder"
        )
    tiles = entry.get("max_dynamic_patch")
    if tiles is not None and (not isinstance(tiles, int) or not 1 <= tiles <= MAX_TILES):
        raise TrainingDataError(f"{where}: max_dynamic_patch {tiles!r} is not a number from 1 to {MAX_TILES}")
    frames = entry.get("frames")
    if frames is not None and (type(frames) is not int or not 1 <= frames <= MAX_FRAMES):
        raise TrainingDataError(f"{where}: frames {frames!r} is not a number from 1 to {MAX_FRAMES}")
    if not isinstance(entry.get("augment", True), bool):
        raise TrainingDataError(f"{where}: augment {entry['augment']!r} is neither true nor false")
    return DataSet(
        name=name,
        root=_located(path, str(entry["root"])),
        annotation=annotation,
        repeat_time=float(repeat),
        data_augment=bool(entry.get("data_augment", False)),
        max_dynamic_patch=tiles,
        frames=frames,
        augment=entry.get("augment", True),
    )


def _located(meta: Path, name: str) -> Path:
    """A path in a meta file, resolved from its folder, or else from the current one."""
    own = meta.parent / name
    return own if own.exists() or not Path(name).exists() else Path(name)


@contextmanager
def left_out(bad: BadLines | None) -> Iterator[None]:
    """Notes a bad line in `bad` and continues; with None, the error is raised."""
    try:
        yield
    except TrainingDataError as error:
        if bad is None:
            raise
        bad.add(error)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an annotation file: its number from 1, its first byte's place, and its bytes."""

    number: int
    offset: int
    content: bytes


def read_lines(data_set: DataSet) -> Iterator[Line]:
    """The lines that are not blank; of a JSON list, its elements.

    Raises:
        TrainingDataError: a list that cannot be read.
    """
    with data_set.annotation.open("rb") as file:
        if file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
            yield from _elements(data_set.annotation)
            return
        file.seek(0)
        offset = 0
        for number, content in enumerate(file, 1):
            if content.strip():
                yield Line(number, offset, content)
            offset += len(content)


def _elements(path: Path) -> Iterator[Line]:
    """The elements of a JSON list, numbered from 1, with their place in bytes."""
    try:
        text = path.read_bytes().decode("utf-8")
        decoder, place, number, offset = json.JSONDecoder(), text.index("[") + 1, 0, 0
        read = 0
        while text[place := _SPACE.match(text, place).end()] != "]":  # type: ignore[union-attr]
            number += 1
            _, end = decoder.raw_decode(text, place)
            offset += len(text[read:place].encode())
            content = text[place:end].encode()
            yield Line(number, offset, content)
            offset += len(content)
            read = place = end
            place = _SPACE.match(text, place).end()  # type: ignore[union-attr]
            if text[place] == ",":
                place += 1
            elif text[place] != "]":
                raise ValueError(f"no comma after element {number}")
    except (ValueError, IndexError, RecursionError, OSError) as error:
        raise TrainingDataError(f"{path}: not a JSON list ({error or 'it ends too early'})") from None


def parse_line(data_set: DataSet, line: Line) -> Conversation:
    """One sample.

    Raises:
        TrainingDataError: a bad line, with file and line number.
    """
    number = line.number
    where = f"{data_set.annotation}:{number}"
    try:
        raw = strict_json.loads(line.content)
    except strict_json.AmbiguousJson as error:
        raise TrainingDataError(f"{where}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise TrainingDataError(f"{where}: not JSON ({error})") from None
    if not isinstance(raw, dict):
        raise TrainingDataError(f"{where}: not an object")
    formed = internvl_line(raw, where)
    raw = formed.content
    _say_form(data_set, formed.form)
    _say_unread(data_set, formed.unread)
    images = raw.get("image") or []
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not all(isinstance(name, str) for name in images):
        raise TrainingDataError(f"{where}: image must be a path or a list of paths")
    video = raw.get("video")
    if video is not None and (images or not isinstance(video, str)):
        raise TrainingDataError(f"{where}: video must be one path, without image")
    turns = _turns(raw.get("conversations"), where)
    if video is not None:
        turns = _with_marks(turns, "<video>", 1, where)
    elif images:
        turns = _with_marks(turns, "<image>", len(images), where)
    elif any("<image>" in turn.text or "<video>" in turn.text for turn in turns if turn.role == "user"):
        raise TrainingDataError(f"{where}: <image> without an image")
    return Conversation(
        id=f"{data_set.name}/{raw.get('id', number)}",
        turns=turns,
        images=tuple(str(data_set.root / name) for name in images),
        video=None if video is None else str(data_set.root / video),
        clip=_clip(raw.get("clip"), where),
        max_tiles=data_set.max_dynamic_patch,
        frames=data_set.frames,
        augment=data_set.data_augment,
        as_is=not data_set.augment,
        where=where,
    )


@cache
def _say_form(data_set: DataSet, form: str) -> None:
    """One line a data set on the form of its lines."""
    if form != "InternVL":
        logger.info("%s: lines of the form %s are read (docs/training.md)", data_set.name, form)


@cache
def _say_unread(data_set: DataSet, keys: tuple[str, ...]) -> None:
    """One line a data set and set of keys that mean nothing to training."""
    if keys:
        logger.warning("%s: %s of its lines: not read", data_set.name, ", ".join(map(repr, keys)))


def _clip(raw: Any, where: str) -> tuple[float, float] | None:
    if raw is None:
        return None
    numbers = isinstance(raw, list) and [type(item) in (int, float) for item in raw] == [True, True]
    if not numbers or not 0 <= raw[0] < raw[1] < math.inf:
        raise TrainingDataError(f"{where}: clip {raw!r} is not [start, end] in seconds")
    return float(raw[0]), float(raw[1])


def _turns(raw: Any, where: str) -> tuple[Turn, ...]:
    if not isinstance(raw, list) or not raw:
        raise TrainingDataError(f"{where}: conversations must be a list of turns")
    turns = []
    for position, item in enumerate(raw):
        role = ROLES.get(str(item.get("from"))) if isinstance(item, dict) else None
        if role is None or not isinstance(item.get("value"), str):
            raise TrainingDataError(f"{where}: turn {position + 1} needs from (human, gpt, system) and value")
        turns.append(Turn(role, item["value"]))
    spoken = turns[1:] if turns[0].role == "system" else turns
    expected = ["user", "assistant"] * ((len(spoken) + 1) // 2)
    if not spoken or len(spoken) % 2 or [turn.role for turn in spoken] != expected:
        raise TrainingDataError(f"{where}: turns must alternate human, gpt and end with gpt")
    if not any(turn.text.strip() for turn in spoken if turn.role == "assistant"):
        raise TrainingDataError(f"{where}: every answer is empty, nothing to learn")
    return tuple(turns)


def _with_marks(turns: tuple[Turn, ...], mark: str, count: int, where: str) -> tuple[Turn, ...]:
    """Turns with exactly `count` marks in user turns; a single missing mark is put in front."""
    found = sum(turn.text.count(mark) for turn in turns if turn.role == "user")
    if found == 0 and count == 1:
        first = next(i for i, turn in enumerate(turns) if turn.role == "user")
        marked = Turn("user", f"{mark}\n{turns[first].text}")
        return (*turns[:first], marked, *turns[first + 1 :])
    if found != count:
        raise TrainingDataError(f"{where}: {found} {mark} for {count} images")
    return turns
