"""DIOR-RSVG (Zhan, Xiong and Yuan, TGRS 2023): find the described object in a remote-sensing image.

Reads the official VOC annotations with the index files, or InternVL's converted list. An official id is the
running number of an `<object>` over all XML files in sorted path order, so the annotations must be complete.
The split `geochat` is not of this benchmark: it asks GeoChat-Bench's references to objects of DIOR images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.contracts import Generation, ImagePolicy, Record, Response, Sample
from evalkit.data.images import ImageFile
from evalkit.errors import DataError
from evalkit.files import fields, read_json_items, require, text_of
from evalkit.macos import is_attribute
from evalkit.metrics.base import Accuracy, Mean, Metric
from evalkit.metrics.boxes import CumulativeIoU, double_bracketed_box, first_four_fields_box, iou, overlap
from evalkit.task import MINIATURE, DataFile, DataSource, Overlay, Region, record
from evalkit_tasks.base import INTERNVL_IS_PAPER, PaperTask, drawn
from evalkit_tasks.remote_sensing import geochat
from evalkit_tasks.remote_sensing.image_folders import image_folder

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

INDEX_FILES = ("train.txt", "val.txt", "test.txt")
LIST = "dior_rsvg_test.json"
SOURCE = "github.com/ZhanYang-nwpu/RSVG-pytorch (Google Drive link)"
INTERNVL = "huggingface.co/datasets/OpenGVLab/InternVL-Domain-Adaptation-Data"
THRESHOLDS = (0.5, 0.25, 0.75)
GEOCHAT = "geochat"


def _lists(split: str) -> tuple[str, ...]:
    """Names of InternVL's converted list."""
    return (LIST, f"val/{LIST}") if split == "test" else ()


def _files(split: str) -> Sequence[DataFile]:
    if split == GEOCHAT:
        return [DataFile(geochat.REFERRING, geochat.SOURCE, "Apache 2.0")]
    lists, licence = _lists(split), "none stated; not to be redistributed"
    index = f"{SOURCE}; or {INTERNVL}" if lists else SOURCE
    return [
        DataFile(f"{split}.txt", index, licence, alternatives=lists),
        DataFile("Annotations/", SOURCE, licence, alternatives=lists),
        DataFile("JPEGImages/", SOURCE, licence, alternatives=("images",)),
    ]


def _regions(item: Record) -> Sequence[Region]:
    """The target's box and the predicted one."""
    width, height = item.data["size"]
    found = [Region("target", tuple(item.target), (width, height))]
    if item.prediction is not None:
        found.append(Region("prediction", tuple(item.prediction), (width, height)))
    return found


class DiorRsvg(PaperTask):
    """One box a query; Table 11 prints acc_0.5.

    Protocol `paper` is rs_det/caculate.py (double brackets, +1 pixel, IoU strictly above the threshold);
    `refcoco` is InternVL's RefCOCO script (first four fields, no +1, threshold included).
    """

    name = "dior-rsvg"
    title = "DIOR-RSVG"
    about = "Aerial images: the box of a described object"
    splits = ("test", "val", GEOCHAT)
    protocols = ("paper", "refcoco", "internvl")
    same_scorer = INTERNVL_IS_PAPER
    template = "Detect {question}"
    generation = Generation(max_new_tokens=200)
    data_source = DataSource(
        files={split: _files(split) for split in splits},
        sizes={"test": 7500, "val": 3829},
        draw=drawn(name),
    )
    overlay = Overlay(_regions)

    def __init__(self, protocol: str | None = None) -> None:
        super().__init__(protocol)
        if self.protocol == "refcoco":
            self.template = (
                "Please provide the bounding box coordinate of the region this sentence describes: {question}"
            )
            self.generation = Generation(max_new_tokens=100)
            self.image_policy = ImagePolicy(max_tiles=6)

    def samples(self, split: str, root: Path) -> Iterator[Sample]:
        """See `Task.samples`."""
        split = self.splits[0] if split == MINIATURE else split
        if split == GEOCHAT:
            return self._from_geochat(root)
        listing = next((path for name in _lists(split) if (path := root / name).is_file()), None)
        if listing is not None and not (root / "Annotations").is_dir():
            return self._from_list(listing, root)
        return self._from_official(split, root)

    def _from_official(self, split: str, root: Path) -> Iterator[Sample]:
        ids = _index(root / f"{split}.txt")
        objects = _all_objects(root / "Annotations")
        _check_whole(root, len(objects))
        _check_disjoint(root, split, ids)
        for number in ids:
            found = objects[number]
            image = ImageFile(str(root / "JPEGImages" / found.image))
            query = f"<ref>{found.expression.lower()}</ref>"
            yield _sample(str(number), image, found.image, query, found.box, found.size)

    def _from_list(self, listing: Path, root: Path) -> Iterator[Sample]:
        folder: Path | None = None
        for position, item in enumerate(read_json_items(listing)):
            where = f"{listing}: item {position}"
            row = fields(item, ("image", "prompt", "bbox", "size"), where)
            name = text_of(row, "image", where)
            folder = folder or image_folder(root, ("images", "JPEGImages"), name)
            box, size = _numbers(row["bbox"], 4, where), _numbers(row["size"], 2, where)
            prompt = text_of(row, "prompt", where)
            yield _sample(str(position), ImageFile(str(folder / name)), name, prompt, box, size)

    def _from_geochat(self, root: Path) -> Iterator[Sample]:
        for row in geochat.references(root / geochat.REFERRING):
            image = geochat.image_path(root, row.image)
            query = f"<ref>{row.expression.lower()}</ref>"
            yield _sample(row.id, ImageFile(str(image)), image.name, query, row.box, geochat.SIDES)

    def score(self, sample: Sample, response: Response) -> Record:
        """See `Task.score`."""
        width, height = sample.data["size"]
        strict = self.rules == "paper"
        read, pixel = (double_bracketed_box, 1.0) if strict else (first_four_fields_box, 0.0)
        box = read(response.text, width, height)
        if box is None:
            # No intersection; the target still counts in the union.
            intersection, union = 0.0, overlap(sample.target, sample.target, pixel=pixel)[1]
        else:
            intersection, union = overlap(box, sample.target, pixel=pixel)
        fit = iou(intersection, union)
        hits = {f"acc_{t}": float(fit > t if strict else fit >= t) for t in THRESHOLDS}
        return record(
            sample,
            response,
            prediction=None if box is None else list(box),
            scores={"iou": fit, "intersection": intersection, "union": union, **hits},
            unparsed=box is None,
            data={"size": list(sample.data["size"])},
        )

    @property
    def exact_scores(self) -> Sequence[Sequence[str]]:
        """The box that the published accuracy accepts."""
        return [["acc_0.5"]]

    def metrics(self) -> Sequence[Metric]:
        """See `Task.metrics`."""
        return [
            *(Accuracy(f"acc_{t}") for t in THRESHOLDS),
            Mean("mean_iou", "iou"),
            CumulativeIoU("cumulative_iou"),
        ]


@dataclass(frozen=True, slots=True)
class _Object:
    image: str
    size: tuple[float, ...]
    box: tuple[float, ...]
    expression: str


def _sample(
    name: str, image: ImageFile, cluster: str, query: str, box: Sequence[float], size: Sequence[float]
) -> Sample:
    return Sample(name, (query,), (image,), list(box), cluster, data={"size": list(size)})


def _index(path: Path) -> list[int]:
    """Object numbers of an index file, each once."""
    lines = require(path).read_text(encoding="utf-8-sig", errors="replace").split()
    try:
        numbers = [int(line) for line in lines]
    except ValueError as error:
        raise DataError(f"{path}: a line is not a number ({error}): download it again") from None
    if len(set(numbers)) != len(numbers):
        raise DataError(f"{path}: a number is listed twice: not the official file")
    return numbers


def _check_whole(root: Path, objects: int) -> None:
    """Raises DataError unless the index files together name exactly the objects 0 .. `objects` - 1."""
    present = [name for name in INDEX_FILES if (root / name).is_file()]
    named = {number for name in present for number in _index(root / name)}
    if named != set(range(objects)):
        absent = [name for name in INDEX_FILES if name not in present]
        raise DataError(
            f"{root}: Annotations holds {objects} objects, but {', '.join(present)} name {len(named)} "
            f"(up to {max(named, default=-1)}): numbers would resolve to wrong objects; "
            + (f"put {', '.join(absent)} there too" if absent else "put all XML files and index files there")
        )


def _check_disjoint(root: Path, split: str, ids: Sequence[int]) -> None:
    """Raises DataError where a number of the split is in another split's index file too."""
    for other in INDEX_FILES:
        if other == f"{split}.txt" or not (root / other).is_file():
            continue
        if common := sorted(set(ids) & set(_index(root / other))):
            raise DataError(
                f"{root}: {len(common)} of the {len(ids)} numbers of {split}.txt are in {other} too (first: "
                f"{common[0]}), but the official index files are disjoint; an early release was not: "
                "download them again"
            )


def _all_objects(folder: Path) -> list[_Object]:
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import parse

    objects: list[_Object] = []
    for path in sorted(require(folder).rglob("*.xml"), key=lambda found: found.as_posix()):
        if is_attribute(path):
            continue
        try:
            root = parse(path).getroot()
        except DefusedXmlException as error:
            raise DataError(
                f"{path}: refused, it defines entities ({error}): not the official file"
            ) from None
        except Exception as error:  # encodings that Python does not know are LookupErrors
            raise DataError(f"{path}: broken XML ({error}): download it again") from None
        assert root is not None
        objects += [_object(root, element, path) for element in root.findall("object")]
    return objects


def _object(root: Element, element: Element, path: Path) -> _Object:
    size = [_text(root, f"size/{side}", path) for side in ("width", "height")]
    box = [_text(element, f"bndbox/{edge}", path) for edge in ("xmin", "ymin", "xmax", "ymax")]
    return _Object(
        _text(root, "filename", path),
        _numbers(size, 2, str(path)),
        _numbers(box, 4, str(path)),
        _text(element, "description", path),
    )


def _text(element: Element, place: str, path: Path) -> str:
    text = element.findtext(place)
    if text is None:
        raise DataError(f"{path}: <{place}> missing in <{element.tag}>: not the official file")
    return text


def _numbers(values: object, count: int, where: str) -> tuple[float, ...]:
    """`count` finite numbers."""
    try:
        if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != count:
            raise ValueError
        numbers = tuple(float(value) for value in values)
        if not all(abs(number) < 1e9 for number in numbers):
            raise ValueError
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: {count} numbers expected, found {values!r}: not the official file"
        ) from None
    return numbers
