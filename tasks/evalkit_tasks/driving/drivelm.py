"""DriveLM-nuScenes 1.1 (CVPR 2024 Autonomous Driving Challenge): questions about six camera views of a frame.

Sima et al., "DriveLM: driving with graph visual question answering"; Table 4 of the Mini-InternVL paper.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from evalkit.contracts import Generation, ImageHandle, ImagePolicy, Message, Record, Request, Response, Sample
from evalkit.data.images import ImageFile
from evalkit.errors import DataError, UsageError
from evalkit.files import fields, read_json, read_jsonl, text_of
from evalkit.metrics.base import Metric
from evalkit.task import (
    MINIATURE,
    DataFile,
    DataSource,
    JudgeQuestion,
    Overlay,
    ParsedAnswer,
    Region,
    Submission,
)
from evalkit_tasks.base import PaperTask, drawn
from evalkit_tasks.driving import drivelm_metrics, drivelm_scorer
from evalkit_tasks.driving.drivelm_coordinates import (
    CAMERA_SIZE,
    CAMERAS,
    decode_tags,
    encode_tags,
    pixel_tags,
)
from evalkit_tasks.driving.drivelm_questions import KINDS, TAG_NAMES, Question, extract, offer_choices
from evalkit_tasks.driving.drivelm_scene import RECIPE, StitchedViews

#: The paper's sentence about object tags. It stands after the question, and tags hold whole numbers in
#: brackets, as in public copies of InternVL's training list. A prompt from InternVL's list is used unchanged.
TAG_SENTENCE = (
    "Objects are encoded using <c,CAM,[cx,cy]>, where c is the identifier, CAM indicates the camera where "
    "the object’s center point is situated, and x, y represent the horizontal and vertical coordinates of "
    "the center point of the 2D bounding box."
)

_HUB = "huggingface.co/datasets/OpenDriveLab/DriveLM"
_LANGUAGE_LICENCE = "CC BY-NC-SA 4.0"
_FILES: Mapping[str, DataFile] = {
    "val": DataFile(
        "v1_1_val_nus_q_only.json",
        _HUB,
        _LANGUAGE_LICENCE,
        alternatives=("drivelm_val.jsonl", "val/drivelm_val.jsonl"),
    ),
    "train": DataFile("v1_1_train_nus.json", _HUB, _LANGUAGE_LICENCE, alternatives=("train_sample.json",)),
    "sample": DataFile("test_eval.json", "github.com/OpenDriveLab/DriveLM/challenge", _LANGUAGE_LICENCE),
}
_IMAGES = DataFile(
    "nuscenes/samples/",
    f"{_HUB} (drivelm_nus_imgs_train.zip, drivelm_nus_imgs_val.zip)",
    "nuScenes terms of use, non-commercial",
    alternatives=("samples/", "../nuscenes/samples/", "images/drivelm/stitch/", "../images/drivelm/stitch/"),
)


def _regions(item: Record) -> Sequence[Region]:
    """The object tags of target and prediction, on the camera images they name."""
    found: list[Region] = []
    roles: tuple[tuple[Literal["target", "prediction"], object], ...] = (
        ("target", item.target),
        ("prediction", item.prediction),
    )
    for role, text in roles:
        for name, camera, x, y in pixel_tags(str(text)):
            found.append(Region(role, (x, y), CAMERA_SIZE, list(CAMERAS).index(camera), name))
    return found


def _export(records: Sequence[Record], path: Path) -> None:
    """Write the challenge's submission file; fill in team and method before it is sent.

    Raises:
        UsageError: a sample has no answer; the challenge's server stops at that.
    """
    if failed := [item.id for item in records if item.failed]:
        raise UsageError(
            f"{len(failed)} of {len(records)} samples have no answer ({failed[0]} first), which the "
            "challenge refuses; run the same command again to answer them"
        )
    results = [{"id": r.id, "question": _in_submission(r), "answer": r.prediction} for r in records]
    header = {"method": "", "team": "", "authors": [], "email": "", "institution": "", "country": ""}
    path.write_text(json.dumps({**header, "results": results}, indent=4), encoding="utf-8")


def _in_submission(record: Record) -> str:
    question = str(record.data["question"])
    return question if question.startswith("<image>") else f"<image>\n{question}"


class DriveLM(PaperTask):
    """Perception, prediction, planning and behaviour, scored as by the challenge."""

    name = "drivelm"
    title = "DriveLM-nuScenes"
    about = "Driving scenes by six cameras: perception to planning"
    splits = ("val", "train", "sample")
    template = "<image>\n{question} " + TAG_SENTENCE
    generation = Generation(max_new_tokens=200)
    image_policy = ImagePolicy(max_tiles=12)
    group_by: ClassVar[tuple[str, ...]] = ("question_type", "tag", "graph")
    data_source = DataSource(
        files={split: (file, _IMAGES) for split, file in _FILES.items()}, draw=drawn(name)
    )
    overlay = Overlay(_regions)
    submission = Submission("submission.json", _export)

    @property
    def wording(self) -> Sequence[str]:
        """The template, and how image and coordinates are made."""
        return ("\n".join((self.template, RECIPE, encode_tags("<c1,CAM_BACK,1.0,2.0>"))),)

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`; a frame's questions follow each other."""
        file = _FILES["sample" if split == MINIATURE else split]
        path = file.find(root) or root / file.path
        if path.suffix == ".jsonl":
            yield from _listed(path, root)
            return
        images = _IMAGES.find(root) or root / _IMAGES.path
        for scene, frame, content in _frames(path):
            views = _views(content, images, f"{path}: frame {frame}")
            for number, question in enumerate(_questions(split, content, f"{path}: frame {frame}")):
                sample_id = f"{scene}_{frame}_{number}"
                asked = offer_choices(question, sample_id) if split == "train" else question
                yield _sample(sample_id, encode_tags(asked.question), views, asked)

    def request(self, sample: Sample) -> Request:
        """The official prompt; one from InternVL's list is sent unchanged."""
        request = super().request(sample)
        if sample.data.get("listed"):
            return dataclasses.replace(request, messages=(Message("user", sample.turns[-1]),))
        return request

    def parse(self, sample: Sample, response: Response) -> str:
        """The answer with its object tags in camera pixels."""
        return decode_tags(response.text)

    def judge_questions(self, answers: Sequence[ParsedAnswer]) -> Mapping[str, JudgeQuestion]:
        """The challenge's question to its judge, for answers of tags gpt and match that are scored."""
        return drivelm_scorer.judge_questions(answers)

    def score_all(self, answers: Sequence[ParsedAnswer]) -> list[Record]:
        """The challenge's graph rule, frame by frame, and each record's scores."""
        return drivelm_scorer.score_all(answers)

    def metrics(self) -> Sequence[Metric]:
        """The columns of Table 4, with the composites' parts."""
        return drivelm_metrics.metrics()

    def group_metrics(self) -> Sequence[Metric]:
        """The metrics, and the share of questions that the graph rule leaves out."""
        return [*self.metrics(), drivelm_metrics.left_out()]


def _frames(path: Path) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(scene token, frame token, content) of the official file."""
    for scene, content in fields(read_json(path), (), str(path)).items():
        where = f"{path}: scene {scene}"
        for frame, inner in fields(fields(content, ("key_frames",), where)["key_frames"], (), where).items():
            yield scene, frame, fields(inner, ("QA", "image_paths"), f"{path}: frame {frame}")


def _views(frame: Mapping[str, Any], images: Path, where: str) -> StitchedViews:
    """The six views in `images`, a folder a camera; only the file names of the official paths are used."""
    paths = fields(frame["image_paths"], tuple(CAMERAS), where)
    return StitchedViews.of(
        {
            camera: str(images / camera / PurePosixPath(text_of(paths, camera, where)).name)
            for camera in CAMERAS
        }
    )


def _questions(split: str, frame: Mapping[str, Any], where: str) -> Iterator[Question]:
    if split == "train":
        yield from extract(frame, where)
        return
    asked = fields(frame["QA"], (), where)
    for kind in KINDS:
        for pair in asked.get(kind, ()):
            place = f"{where} {kind}"
            content = fields(pair, ("Q",), place)
            answer, tags = _public_answer(content, split, place), _tags(content, place)
            yield Question(kind, text_of(content, "Q", place), answer, tags)


def _tags(content: Mapping[str, Any], where: str) -> tuple[int, ...] | None:
    tags = content.get("tag")
    if tags is None:
        return None
    if not isinstance(tags, list) or not all(isinstance(tag, int) for tag in tags):
        raise DataError(f"{where}: tag {tags!r} is not a list of numbers: not the official file")
    return tuple(tags)


def _public_answer(content: Mapping[str, Any], split: str, where: str) -> str | None:
    """The reference answer; the validation file holds an empty text or nothing in its place."""
    answer = None if content.get("A") is None else text_of(content, "A", where)
    return None if split == "val" and not answer else answer


def _sample(sample_id: str, prompt: str, image: ImageHandle, asked: Question, listed: bool = False) -> Sample:
    data: dict[str, Any] = {"question": asked.question, "tags": asked.tags and list(asked.tags)}
    if listed:
        data["listed"] = True
    if asked.odd_choice:
        data["odd_choice"] = True
    tags = {"question_type": asked.kind} if asked.kind else {}
    if asked.tags is not None:
        tags["tag"] = "+".join(TAG_NAMES.get(tag, str(tag)) for tag in asked.tags) or "none"
    return Sample(
        sample_id,
        (prompt,),
        (image,),
        target=asked.answer,
        cluster=sample_id.rpartition("_")[0],
        tags=tags,
        data=data,
    )


def _listed(path: Path, root: Path) -> Iterator[Sample]:
    """Samples of InternVL's list: prompts unchanged, images already stitched."""
    folders = [root, root / "images/drivelm/stitch", root / "../images/drivelm/stitch", root / "stitch"]
    for row, item in enumerate(read_jsonl(path), 1):
        where = f"{path}: line {row}"
        fields(item, ("id", "image", "question_old", "conversations"), where)
        sample_id, turns = text_of(item, "id", where), item["conversations"]
        if not sample_id.rpartition("_")[2].isdecimal():
            raise DataError(
                f"{where}: id {sample_id!r} does not end in a question's number: not InternVL's list"
            )
        if not isinstance(turns, list) or not turns:
            raise DataError(f"{where}: no conversation: not InternVL's list")
        said = [text_of(fields(turn, ("value",), where), "value", where).strip() for turn in turns]
        answer = decode_tags(said[1]) if len(said) > 1 and said[1] else None
        name = text_of(item, "image", where)
        places = [folder / name for folder in folders]
        image = next((place for place in places if place.is_file()), places[1])
        asked = Question("", text_of(item, "question_old", where), answer, _tags(item, where))
        yield _sample(sample_id, said[0], ImageFile(str(image)), asked, listed=True)
