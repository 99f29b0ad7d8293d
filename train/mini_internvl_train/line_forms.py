"""Lines as InternVL, ms-swift and LLaMA-Factory write them, brought to InternVL's form.

| form | messages | images | system |
|---|---|---|---|
| InternVL | `conversations` of `from`, `value` | `image`, a path or a list | a turn |
| ShareGPT (LLaMA-Factory) | `conversations` of `from`, `value` | `images` | a turn or `system` |
| messages (ms-swift, OpenAI) | `messages` of `role`, `content` | `images` | a message or `system` |
| query (ms-swift) | `history` of pairs, `query`, `response` | `images` | `system` |

A key beyond these is never dropped in silence. One that would change what is learned (tools, boxes, a
preference, an image, video or sound under another name) is refused; any other is named once a data set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mini_internvl_train.errors import TrainingDataError

#: Keys that say what a line is, or repeat what is read from the images.
IGNORED = frozenset(
    ("id", "width", "height", "width_list", "height_list", "length", "source", "category", "type", "split")
)
#: Keys of other programs that change what is learned.
DECISIVE = frozenset(
    ("tools", "objects", "rejected_response", "rejected_messages", "chosen", "rejected", "loss", "kto_tag")
)
_FILE = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?|ppm|mp4|avi|mov|mkv|webm|wav|mp3|flac)$", re.IGNORECASE)
_MEDIA = {"images": "image", "videos": "video"}
_ROLES = {
    **dict.fromkeys(("user", "human"), "human"),
    **dict.fromkeys(("assistant", "gpt", "model"), "gpt"),
    "system": "system",
}


@dataclass(frozen=True, slots=True)
class Formed:
    """A line in InternVL's form.

    Attributes:
        form: the form it was written in. content: the line. unread: keys that mean nothing to training.
    """

    form: str
    content: dict[str, Any]
    unread: tuple[str, ...]


def internvl_line(raw: Mapping[str, Any], where: str) -> Formed:
    """Bring a line to InternVL's form.

    Args:
        raw: a line's object. where: file and line, for errors.

    Raises:
        TrainingDataError: two forms at once, a part of another type, or a key that is not read.
    """
    line = {key: value for key, value in raw.items() if value is not None}
    form, turns = _turns(line, where)
    plain: dict[str, Any] = {"conversations": turns}
    if (system := line.pop("system", None)) not in (None, ""):
        if not isinstance(system, str) or (turns and turns[0]["from"] == "system"):
            raise TrainingDataError(f"{where}: system must be a text, and be given once")
        turns.insert(0, {"from": "system", "value": system})
    inline = [image for turn in turns for image in turn.pop("images", ())]
    for key, name in _MEDIA.items():
        if key in line and name in line:
            raise TrainingDataError(f"{where}: has {name} and {key}; give one of them")
        if (paths := _paths(line.pop(key, None), key, where)) is not None:
            line[name] = paths if name == "image" else _only(paths, key, where)
    if inline and line.get("image"):
        raise TrainingDataError(f"{where}: images stand in the messages and beside them; give one of them")
    if inline:
        line["image"] = inline
    plain |= {key: line.pop(key) for key in ("image", "video", "clip", "id") if key in line}
    unread = {key: value for key, value in line.items() if key not in IGNORED and value not in ("", [], {})}
    if wrong := sorted(key for key, value in unread.items() if key in DECISIVE or _names_file(value)):
        raise TrainingDataError(
            f"{where}: {wrong[0]!r} is not read in a line of the form {form}, and training would miss it; "
            "docs/training.md lists the forms"
        )
    return Formed(form, plain, tuple(sorted(unread)))


def _names_file(value: Any) -> bool:
    """Whether a value, or an item of it, is the name of an image, a video or a sound."""
    if isinstance(value, str):
        return _FILE.search(value) is not None
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_names_file, items))


def _turns(line: dict[str, Any], where: str) -> tuple[str, list[dict[str, Any]]]:
    present = [key for key in ("conversations", "messages", "query", "response") if key in line]
    if present in (["query"], ["response"], []) or ("conversations" in present and len(present) > 1):
        if present:
            raise TrainingDataError(f"{where}: has {' and '.join(present)}; one form of messages is needed")
        raise TrainingDataError(f"{where}: has no conversations, messages, or query and response")
    if "messages" in present and len(present) > 1:
        raise TrainingDataError(f"{where}: has {' and '.join(present)}; one form of messages is needed")
    if "conversations" in present:
        turns = line.pop("conversations")
        form = "ShareGPT" if "images" in line or "system" in line or "videos" in line else "InternVL"
        return form, _listed(turns, "conversations", where)
    if "messages" in present:
        return "messages", [
            _message(item, place, where)
            for place, item in enumerate(_listed(line.pop("messages"), "messages", where), 1)
        ]
    pairs = [*_listed(line.pop("history", []), "history", where), [line.pop("query"), line.pop("response")]]
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise TrainingDataError(f"{where}: history must be a list of [question, answer]")
    return "query", [
        {"from": role, "value": text}
        for pair in pairs
        for role, text in zip(("human", "gpt"), pair, strict=True)
    ]


def _listed(value: Any, key: str, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise TrainingDataError(f"{where}: {key} must be a list")
    return list(value)


def _message(item: Any, place: int, where: str) -> dict[str, Any]:
    role = _ROLES.get(str(item.get("role"))) if isinstance(item, dict) else None
    if role is None:
        raise TrainingDataError(f"{where}: message {place} needs role (system, user, assistant) and content")
    if unknown := sorted(key for key in item if key not in ("role", "content") and item[key] is not None):
        raise TrainingDataError(f"{where}: {unknown[0]} of message {place} is not read; remove it")
    content = item.get("content")
    if isinstance(content, str):
        return {"from": role, "value": content}
    if not isinstance(content, list):
        raise TrainingDataError(f"{where}: content of message {place} must be a text or a list of parts")
    texts, images = [], list[str]()
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
            continue
        if kind not in ("image", "image_url"):
            raise TrainingDataError(f"{where}: a part of message {place} is neither text nor image")
        texts.append("<image>\n")
        if (path := part.get("image") or part.get("path") or part.get("url")) is not None:
            images += _paths([path], "image", where) or []
    return {"from": role, "value": "".join(texts), "images": images}


def _paths(value: Any, key: str, where: str) -> list[str] | None:
    """Paths of a list whose items are paths or objects with one (`{"path": …}`)."""
    if value is None or value == []:
        return None
    items = value if isinstance(value, list) else [value]
    named = [item.get("path") if isinstance(item, dict) else item for item in items]
    paths = [path for path in named if isinstance(path, str) and path]
    if len(paths) < len(items):
        raise TrainingDataError(f"{where}: {key} must be paths; bytes inside a line are not read")
    if any(path.startswith(("http://", "https://", "data:")) for path in paths):
        raise TrainingDataError(f"{where}: {key} holds an address; download the images and give paths")
    return paths


def _only(paths: list[str], key: str, where: str) -> str:
    if len(paths) > 1:
        raise TrainingDataError(f"{where}: {key} has {len(paths)} videos; one a line is read")
    return paths[0]
