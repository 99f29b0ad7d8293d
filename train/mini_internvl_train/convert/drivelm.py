"""DriveLM-nuScenes: six views in one image (2688x896), object tags in thousandths of it.

Every annotated question of a frame is learned once; those that the challenge asks as multiple choice are
learned in that form too. An answer that lists a scene's important objects carries each one's box behind its
tag. What the annotations know of the key objects gives grounding and region questions: the object's box for
its description, and its description for its box.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from evalkit.files import fields, read_json, require, text_of
from evalkit_tasks.driving.drivelm import TAG_SENTENCE
from evalkit_tasks.driving.drivelm_coordinates import CAMERAS, encode_box, encode_tags
from evalkit_tasks.driving.drivelm_questions import KINDS, Question, offer_choices
from evalkit_tasks.driving.drivelm_scene import StitchedViews, stitch
from mini_internvl_train.convert.lines import IMAGE, Converted, Line, line

NAMES = {
    "train": ("v1_1_train_nus.json", "train_sample.json"),
    "sample": ("test_eval.json",),
    "miniature": ("test_eval.json",),
}
IMAGE_FOLDERS = ("nuscenes/samples", "samples", "../nuscenes/samples")
TILES = 12
LISTS = "what are the important objects in the current scene"
"""How a question begins whose answer is a list of objects."""


def convert(root: Path, split: str, folder: Path) -> Iterator[Converted]:
    """Questions and answers, and what the key objects give."""
    path = next((root / name for name in NAMES[split] if (root / name).is_file()), root / NAMES[split][0])
    images = next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), root / IMAGE_FOLDERS[0])
    require(path)
    yield Converted("drivelm", folder, _lines(path, images, folder, _questions), TILES)
    if split == "train":
        yield Converted("drivelm_objects", folder, _lines(path, images, folder, _objects), TILES)


def _lines(path: Path, images: Path, folder: Path, ask: Any) -> Iterator[Line]:
    for scene, content in fields(read_json(path), (), str(path)).items():
        frames = fields(content, ("key_frames",), f"{path}: scene {scene}")["key_frames"]
        for frame, inner in frames.items():
            where = f"{path}: frame {frame}"
            name = f"{scene}_{frame}"
            asked = list(ask(fields(inner, ("QA", "image_paths"), where), name, where))
            if not asked:
                continue
            image = _stitched(inner, images, folder, name, where)
            for number, (question, answer) in enumerate(asked):
                yield line(f"{name}_{number}", question, answer, (image,))


def _questions(frame: Mapping[str, Any], name: str, where: str) -> Iterator[tuple[str, str]]:
    boxes = _boxes(frame)
    asked: set[str] = set()
    number = 0
    for kind in KINDS:
        for pair in frame["QA"].get(kind, ()):
            content = fields(pair, ("Q", "A"), f"{where} {kind}")
            question = Question(kind, text_of(content, "Q", where), text_of(content, "A", where), None)
            offered = offer_choices(question, f"{name}_{number}")
            forms = [question] if offered == question or "A." in question.question else [question, offered]
            for form in forms:
                text = f"{IMAGE}\n{encode_tags(form.question)} {TAG_SENTENCE}"
                if text in asked:  # annotations hold some questions twice
                    continue
                asked.add(text)
                yield text, _answer(form, boxes)
            number += 1


def _boxes(frame: Mapping[str, Any]) -> dict[str, str]:
    """Box of each key object that has one, by its tag as answers write it."""
    known = frame.get("key_object_infos")
    found = {}
    for tag, inner in known.items() if isinstance(known, Mapping) else ():
        camera = str(tag).split(",")[1].strip() if str(tag).count(",") > 1 else ""
        box = inner.get("2d_bbox") if isinstance(inner, Mapping) else None
        if camera in CAMERAS and box is not None:
            found[encode_tags(str(tag))] = encode_box(camera, box)
    return found


def _answer(question: Question, boxes: Mapping[str, str]) -> str:
    """The answer with tags of the stitched image; a list of objects with their boxes behind the tags."""
    text = encode_tags(str(question.answer))
    if not question.question.lower().startswith(LISTS):
        return text
    for tag, box in boxes.items():
        text = text.replace(tag, f"{tag}{box}")
    return text


def _objects(frame: Mapping[str, Any], name: str, where: str) -> Iterator[tuple[str, str]]:
    """Grounding and region perception; a description that two objects share is not asked for."""
    known = fields(frame, ("key_object_infos",), where)["key_object_infos"]
    objects = [fields(found, ("Visual_description",), where) for found in known.values()]
    described = [text_of(found, "Visual_description", where) for found in objects]
    for tag, found in known.items():
        description = text_of(found, "Visual_description", where)
        camera = str(tag).split(",")[1].strip()
        if camera not in CAMERAS or found.get("2d_bbox") is None:
            continue
        label = f"<ref>{description.rstrip('.').lower()}</ref>"
        box = encode_box(camera, found["2d_bbox"])
        if described.count(description) == 1:
            yield f"{IMAGE}\nDetect {label}", f"{label}{box}"
        yield f"{IMAGE}\nWhat object is in this location{box}", f"{label}{box}"


def _stitched(frame: Mapping[str, Any], images: Path, folder: Path, name: str, where: str) -> str:
    """Name of the frame's stitched image, the very bytes that evaluation decodes."""
    target = folder / f"{name}.jpg"
    if not target.is_file():
        paths = fields(frame["image_paths"], tuple(CAMERAS), where)
        names = {camera: PurePosixPath(text_of(paths, camera, where)).name for camera in CAMERAS}
        views = StitchedViews.of({camera: str(images / camera / file) for camera, file in names.items()})
        folder.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".tmp")
        temporary.write_bytes(stitch(views.views))
        temporary.replace(target)
    return target.name
