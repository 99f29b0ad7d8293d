"""The questions of a task as a file, so that any other program can answer them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from evalkit.contracts import ImageHandle, Json, Request
from evalkit.data.images import ImageFile
from evalkit.errors import RunFolderError
from evalkit.pipeline.job import Job
from evalkit.store.atomic import write_whole


def export_questions(job: Job, path: Path) -> int:
    """Write one JSON line a sample; returns how many.

    A line has `id`, `prompt` (the last message as sent, `<image>` where an image goes), `messages`, `images`
    (paths in the order of their marks), `generation` and `image_policy`. An image without a file of its own
    (a table's cell, a video's frame, stitched views) is written as PNG beside `path`, in `<name>_images/`.

    Raises:
        ImageError: an image cannot be read. RunFolderError: the disk is full or refuses.
    """
    folder = path.with_name(f"{path.stem}_images")
    requests = (job.request(position) for position in range(len(job.samples)))

    def write(scratch: Path) -> None:
        with scratch.open("w", encoding="utf-8") as file:
            for line in _lines(requests, folder):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written ({error.strerror or error})") from None
    write_whole(path, write)
    return len(job.samples)


def _lines(requests: Iterator[Request], folder: Path) -> Iterator[dict[str, Json]]:
    written: dict[str, str] = {}
    for request in requests:
        yield {
            "id": request.id,
            "prompt": request.messages[-1].text,
            "messages": [{"role": message.role, "content": message.text} for message in request.messages],
            "images": [_path(image, folder, written) for image in request.images],
            "generation": dataclasses.asdict(request.generation),
            "image_policy": dataclasses.asdict(request.image_policy),
        }


def _path(image: ImageHandle, folder: Path, written: dict[str, str]) -> str:
    if isinstance(image, ImageFile):
        return str(Path(image.path).resolve())
    name = image.identity()
    if name not in written:
        path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.png"
        opened = image.open()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            opened.convert("RGB").save(path)
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written ({error.strerror or error})") from None
        written[name] = str(path.resolve())
    return written[name]
