"""What the protocols of a benchmark set: prompt, length of the answer, tiles; and where its files lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from evalkit.contracts import Generation, ImagePolicy, Record, Sample
from evalkit.data.images import ImageFile
from evalkit.errors import DataError
from evalkit.task import Task
from evalkit_tasks.base import PaperTask

#: VLMEvalKit reduces the tiles so that all images of a question together have at most this many.
VLMEVALKIT_TILES = 64
#: VLMEvalKit's limit of new tokens when the paper was written, and today's.
VLMEVALKIT_TOKENS_2024 = 1024
VLMEVALKIT_TOKENS = 4096
#: What lmms-eval's InternVL2 adapter generates at most where the task's yaml sets no limit.
LMMS_TOKENS = 1024

SHORT_ANSWER = "Answer the question using a single word or phrase."
LETTER_ANSWER = "Answer with the option's letter from the given choices directly."


class Settings(NamedTuple):
    """A protocol's prompt template, limit of new tokens, tiles an image, and tiles in all."""

    template: str
    new_tokens: int
    tiles: int
    total_tiles: int | None = None


class ProtocolTask(PaperTask):
    """A benchmark of the paper whose protocols differ in their settings."""

    settings: ClassVar[Mapping[str, Settings]]

    def __init__(self, protocol: str | None = None) -> None:
        """See `Task`."""
        super().__init__(protocol)
        chosen = self.settings.get(self.protocol) or self.settings[self.rules]
        self.template = chosen.template
        self.generation = Generation(max_new_tokens=chosen.new_tokens)
        self.image_policy = ImagePolicy(max_tiles=chosen.tiles, total_tiles=chosen.total_tiles)


def lacking(task: Task, root: Path, names: Sequence[str]) -> DataError:
    """The error for a root that holds none of `names`."""
    return DataError(
        f"{task.name}: {root} holds none of {', '.join(names)}; see `evalkit data where {task.name}`"
    )


class ImageFiles:
    """Handles of the images under a data root, each looked for once while a split is read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._found: dict[tuple[str, ...], ImageFile] = {}

    def find(self, *candidates: str) -> ImageFile:
        """The first of the paths that exists under the root; else the first, which fails when it is opened.

        Lists made on other machines carry their folders ("data/chartqa/test/png/1.png"), so leading folders
        are dropped one by one.
        """
        if candidates not in self._found:
            self._found[candidates] = self._look_for(candidates)
        return self._found[candidates]

    def _look_for(self, candidates: Sequence[str]) -> ImageFile:
        for candidate in candidates:
            path = _relative(candidate)
            if ".." in path.parts:
                raise DataError(f"{path}: an image's path must lie under the data root {self.root}")
            for start in range(len(path.parts)):
                if (place := self.root.joinpath(*path.parts[start:])).is_file():
                    return ImageFile(str(place))
        return ImageFile(str(self.root / _relative(candidates[0])))


def _relative(candidate: str) -> Path:
    return Path(candidate.lstrip("/\\"))


def each_once(samples: Iterable[Sample], root: Path) -> Iterator[Sample]:
    """The samples.

    Raises:
        DataError: an id occurs twice.
    """
    seen = set[str]()
    for sample in samples:
        if sample.id in seen:
            raise DataError(f"{root}: id {sample.id} occurs twice: not the official file, download it again")
        seen.add(sample.id)
        yield sample


def answered(records: Sequence[Record]) -> list[Record]:
    """The records that a submission file holds: those of failed samples are left out."""
    return [record for record in records if not record.failed]
