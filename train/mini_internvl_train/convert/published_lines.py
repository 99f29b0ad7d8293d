"""Published instruction files in LLaVA's form: their lines, with boxes rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.errors import DataError
from evalkit.files import fields, id_of, read_json_items, read_jsonl, text_of
from mini_internvl_train.convert.lines import IMAGE, Line, conversation
from mini_internvl_train.convert.rotated_boxes import has_rotated

SPEAKERS = ("human", "gpt")


def find(root: Path, names: Sequence[str], what: str) -> list[Path]:
    """Files of the first pattern that matches any.

    Raises:
        DataError: none does.
    """
    for name in names:
        if found := sorted(path for path in root.glob(name) if path.is_file()):
            return found
    raise DataError(f"{what}: {root} holds none of {', '.join(names)}")


def image_folder(root: Path, names: Sequence[str]) -> Path:
    """The first folder of the names that there is; the root itself if there is none."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def read_published(path: Path, rewrite: Callable[[str], str], notes: list[str]) -> Iterator[Line]:
    """Lines of a JSON list or of JSON lines.

    Args:
        path: of the file; an item has `conversations`, or `question` and `answer`.
        rewrite: of a text. notes: gets what a reader must know.

    Raises:
        DataError: an item of another form, or with a box that could not be rewritten, with file and place.
    """
    items: Iterator[Any] = read_jsonl(path) if path.suffix == ".jsonl" else read_json_items(path)
    text_only = 0
    for position, item in enumerate(items):
        where = f"{path}: item {position}"
        row = fields(item, (), where)
        turns = [(rewrite(asked), rewrite(said)) for asked, said in _turns(row, where)]
        if left := next((text for turn in turns for text in turn if has_rotated(text)), None):
            raise DataError(f"{where}: a rotated box cannot be read: {left[:200]!r}")
        name = id_of(row, "id", where) if "id" in row else str(position)
        image = row.get("image")
        if image is None:
            text_only += 1
        elif not isinstance(image, str):
            raise DataError(f"{where}: image must be a path")
        else:
            (first, said), *rest = turns
            turns = [(first if IMAGE in first else f"{IMAGE}\n{first}", said), *rest]
        yield conversation(name, turns, () if image is None else (image,))
    if text_only:
        notes.append(f"{path.name}: {text_only:,} samples have no image")


def _turns(row: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    if "conversations" not in row:
        pair = fields(row, ("question", "answer"), where)
        return [(text_of(pair, "question", where), text_of(pair, "answer", where))]
    spoken = row["conversations"]
    if not isinstance(spoken, list) or not spoken or len(spoken) % 2:
        raise DataError(f"{where}: conversations must be a list of questions and answers by turns")
    turns = [fields(turn, ("from", "value"), where) for turn in spoken]
    if [turn["from"] for turn in turns] != [*SPEAKERS] * (len(turns) // 2):
        raise DataError(f"{where}: speakers must be human and gpt by turns")
    texts = [text_of(turn, "value", where) for turn in turns]
    return list(zip(texts[::2], texts[1::2], strict=True))
