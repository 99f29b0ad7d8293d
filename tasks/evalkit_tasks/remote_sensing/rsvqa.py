"""RSVQA, low and high resolution (Lobry et al., TGRS 2020): questions on satellite and aerial images.

Reads the official JSON files (questions, answers; inactive stubs skipped, everything looked up by id),
InternVL's converted lists, or GeoChat-Bench's questions with the official answers. Questions are streamed, so
that a split of a million costs twelve bytes an answer in memory and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from sys import intern
from typing import Any, ClassVar

from evalkit.contracts import Generation, Record, Response, Sample
from evalkit.data.images import ImageFile
from evalkit.errors import DataError
from evalkit.metrics.base import Accuracy, Metric, macro_mean
from evalkit.metrics.counts import same_bin, square_metres, whole_number
from evalkit.task import MINIATURE, DataFile, DataSource, record
from evalkit_tasks.base import INTERNVL_IS_PAPER, PaperTask, drawn
from evalkit_tasks.remote_sensing import geochat
from evalkit_tasks.remote_sensing.image_folders import image_folder
from evalkit_tasks.remote_sensing.rsvqa_files import active_rows, lacking, only_one, plain_text, read_answers

COUNT, AREA, PRESENCE, RURAL_URBAN = "count", "area", "presence", "rural_urban"
#: The official files say `comp`.
COMPARE = ("comp", "compare")
#: Image handles kept for later questions at most: more than either set has.
_KEPT_IMAGES = 1 << 14
INTERNVL = "huggingface.co/datasets/OpenGVLab/InternVL-Domain-Adaptation-Data"


def of_type(*types: str) -> Callable[[Record], bool]:
    """Selects records of these question types."""
    return lambda r: r.tags["type"] in types


def averaged(r: Record) -> bool:
    """Whether a question enters the average: neither count nor area (score.py's total_score_useful)."""
    return r.tags["type"] not in (COUNT, AREA)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the files of one of the two sets lie.

    Attributes:
        prefixes: of the questions' and answers' files, by split. lists: InternVL's converted lists, by split.
        geochat: GeoChat-Bench's files of questions, by split.
        folder: of the images; list_folder: of the images that the lists name.
        source: where the official files come from.
    """

    prefixes: Mapping[str, str]
    lists: Mapping[str, str]
    geochat: Mapping[str, str]
    folder: str
    list_folder: str
    source: str

    def with_prefix(self, split: str, prefix: str) -> _Layout:
        """The layout with one more split."""
        return replace(self, prefixes={**self.prefixes, split: prefix})

    def list_names(self, split: str) -> tuple[str, ...]:
        """Names of the converted list of a split; none for most splits."""
        name = self.lists.get(split)
        return (name, f"val/{name}") if name else ()

    def data_source(self, task: str, sizes: Mapping[str, int]) -> DataSource:
        """The official files and the drawn miniature."""
        return DataSource(
            files={split: self._files(split) for split in self.prefixes}, sizes=sizes, draw=drawn(task)
        )

    def _files(self, split: str) -> Sequence[DataFile]:
        licence, lists = "see the Zenodo record", self.list_names(split)
        source = f"{self.source}; or {INTERNVL}" if lists else self.source
        names = [f"{self.prefixes[split]}_{part}.json" for part in ("questions", "answers")]
        lists += (self.geochat[split],) if split in self.geochat else ()
        images = DataFile(f"{self.folder}/", self.source, licence, alternatives=(self.list_folder,))
        return [*(DataFile(name, source, licence, alternatives=lists) for name in names), images]


class _Rsvqa(PaperTask):
    protocols = ("paper", "official", "internvl")
    same_scorer = INTERNVL_IS_PAPER
    headline = "average"
    template = "{question}\nAnswer the question using a single word or phrase."
    generation = Generation(max_new_tokens=50)

    layout: ClassVar[_Layout]

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`."""
        split = self.splits[0] if split == MINIATURE else split
        prefix = self.layout.prefixes[split]
        questions = root / f"{prefix}_questions.json"
        names = self.layout.list_names(split)
        listing = next((path for name in names if (path := root / name).is_file()), None)
        asked, answers = root / self.layout.geochat.get(split, ""), root / f"{prefix}_answers.json"
        if listing is not None and not questions.is_file():
            return self._from_list(listing, root)
        if asked.is_file() and not questions.is_file():
            return self._from_geochat(asked, answers, root)
        return self._from_official(questions, answers, root)

    def _from_official(self, questions: Path, answers: Path, root: Path) -> Iterator[Sample]:
        build, by_id = _Builder(root / self.layout.folder, ".tif"), read_answers(answers)
        for row in active_rows(questions, "questions"):
            try:
                image, kind, answer = row["img_id"], row["type"], by_id.get(only_one(row["answers_ids"]))
                sample = build.sample(row["id"], image, kind, row["question"], answer)
            except (LookupError, TypeError) as error:
                raise lacking(questions, row, error) from None
            if answer is None:
                raise DataError(
                    f"{questions}: question {row['id']} has no active answer in {answers.name}: "
                    "the two files do not belong together, download both again"
                )
            yield sample

    def _from_list(self, listing: Path, root: Path) -> Iterator[Sample]:
        build: _Builder | None = None
        for position, row in enumerate(active_rows(listing, None)):
            try:
                if build is None:
                    folder = image_folder(
                        root, (self.layout.list_folder, self.layout.folder), plain_text(row["image"], "image")
                    )
                    build = _Builder(folder)
                name, answer = row.get("id", position), plain_text(row["gt_answer"], "gt_answer")
                sample = build.sample(name, row["image"], row["type"], row["question"], answer)
            except (LookupError, TypeError) as error:
                raise lacking(listing, row, error) from None
            yield sample

    def _from_geochat(self, path: Path, answers: Path, root: Path) -> Iterator[Sample]:
        build: _Builder | None = None
        by_question = read_answers(answers, "question_id") if answers.is_file() else None
        for row in geochat.questions(path, (PRESENCE, *COMPARE, RURAL_URBAN, COUNT, AREA)):
            folders = (self.layout.folder, self.layout.list_folder)
            build = build or _Builder(image_folder(root, folders, row.image))
            answer = row.answer
            if answer is None and by_question is not None:
                answer = by_question.get(row.id)
            if answer is None:
                raise DataError(f"{row.where}: no answer; put {answers.name} of {self.layout.source} there")
            yield build.sample(row.id, row.image, row.kind, row.text, answer)

    def score(self, sample: Sample, response: Response) -> Record:
        """See `Task.score`."""
        kind, target, quirk = sample.tags["type"], str(sample.target), self.rules == "paper"
        if kind not in (COUNT, AREA):
            right = response.text != "" and response.text.lower() == target.lower()
            return record(sample, response, prediction=response.text, scores={"accuracy": float(right)})
        if kind == AREA:
            wanted = square_metres(target, quirk=quirk)
            given = whole_number(response.text) if quirk else square_metres(response.text, quirk=False)
        else:
            wanted, given = whole_number(target), whole_number(response.text)
        right = wanted is not None and given is not None and same_bin(given, wanted)
        return record(
            sample,
            response,
            prediction=None if given is None else str(given),
            scores={"accuracy": float(right)},
            unparsed=given is None,
        )

    def impossible_key(self, sample: Sample) -> str | None:
        """A count or an area that is none; see `Task.impossible_key`."""
        kind, target = sample.tags["type"], str(sample.target)
        if kind in (COUNT, AREA):
            number = whole_number(target) if kind == COUNT else square_metres(target, quirk=False)
            if number is None or number < 0:
                return f"answer {target[:40]!r} is no {kind}"
        return super().impossible_key(sample)

    def metrics(self) -> Sequence[Metric]:
        """See `Task.metrics`."""
        parts = self._parts()
        return [
            *parts,
            Accuracy("average", "accuracy", select=averaged),
            macro_mean("average_macro", parts),
            *(Accuracy(kind, "accuracy", select=of_type(kind)) for kind in self._others()),
        ]

    def _parts(self) -> list[Metric]:
        return [
            Accuracy("presence", "accuracy", select=of_type(PRESENCE)),
            Accuracy("compare", "accuracy", select=of_type(*COMPARE)),
        ]

    def _others(self) -> tuple[str, ...]:
        return (COUNT,)


class RsvqaLr(_Rsvqa):
    """Sentinel-2 images of the Netherlands, 256 x 256; Table 11."""

    name = "rsvqa-lr"
    title = "RSVQA-LR"
    about = "Satellite images of 10 m: land use, presence, counts"
    splits = ("test", "val")
    layout = _Layout(
        prefixes={"test": "LR_split_test", "val": "LR_split_val"},
        lists={"test": "rsvqa_l_test_instruct.json"},
        geochat={"test": "lrben.jsonl"},
        folder="Images_LR",
        list_folder="images/RSVQA_L/Images_LR",
        source="zenodo.org/records/6344334",
    )
    data_source = layout.data_source(name, {"test": 10004, "val": 10005})

    def _parts(self) -> list[Metric]:
        return [Accuracy(RURAL_URBAN, "accuracy", select=of_type(RURAL_URBAN)), *super()._parts()]


class RsvqaHr(_Rsvqa):
    """USGS aerial images, 512 x 512; test1 in the training region, test2 in Philadelphia; Table 11."""

    name = "rsvqa-hr"
    title = "RSVQA-HR"
    about = "Aerial images of 15 cm: presence, counts, areas"
    splits = ("test1", "test2", "val")
    layout = _Layout(
        prefixes={
            "test1": "USGS_split_test",
            "test2": "USGS_split_test_phili",
            "val": "USGS_split_val",
        },
        lists={"test1": "rsvqa_h_test_1_instruct.json", "test2": "rsvqa_h_test_2_instruct.json"},
        geochat={"test2": "hrben.jsonl"},
        folder="Data",
        list_folder="images/RSVQA-H/Data",
        source="zenodo.org/records/6344367",
    )
    data_source = layout.data_source(name, {"test1": 222684, "test2": 105647})

    def _others(self) -> tuple[str, ...]:
        return (COUNT, AREA)


class _Builder:
    """Makes samples that share their images' handles, tags and cluster names."""

    def __init__(self, folder: Path, suffix: str = "") -> None:
        self._folder = folder
        self._suffix = suffix
        self._images: dict[object, tuple[tuple[ImageFile, ...], str]] = {}
        self._tags: dict[str, Mapping[str, str]] = {}
        self._data: Mapping[str, Any] = {}

    def sample(self, name: object, image_id: object, kind: str, question: str, answer: str | None) -> Sample:
        """Raises TypeError for a type or question that is not text."""
        found = self._images.get(image_id)
        if found is None:
            if len(self._images) == _KEPT_IMAGES:
                self._images.clear()
            image = ImageFile(str(self._folder / f"{image_id}{self._suffix}"))
            found = self._images.setdefault(image_id, ((image,), str(image_id)))
        tags = self._tags.get(plain_text(kind, "type"))
        if tags is None:
            tags = self._tags.setdefault(intern(kind), {"type": kind})
        return Sample(
            str(name), (plain_text(question, "question"),), found[0], answer, found[1], tags, self._data
        )
