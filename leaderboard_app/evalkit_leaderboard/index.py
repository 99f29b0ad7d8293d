"""All runs under some folders, kept in the app's own cache and read again only where something changed.

The run folders are the truth; the index is a Parquet file beside them in nobody's way
(`<cache>/leaderboard`), made again whenever it is lost, broken or of another version.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from evalkit.data.locate import cache_folder
from evalkit_leaderboard.runs import MANIFEST, RECORDS, SUMMARY, Run, finished, read_run, stamp

log = logging.getLogger(__name__)

#: Raise when `Run` changes.
_VERSION = 4
#: Runs lie three levels under the output folder; somebody may point at any folder above them.
_DEPTH = 5
#: Seconds between two looks at the disk, however many pages ask.
_PATIENCE = 1.0
_MARKS = (MANIFEST, SUMMARY, RECORDS)


class Index:
    """Runs under `roots` as of the last look.

    Attributes:
        runs: by key, a short hash of the folder's place under the first root; in others of its whole path.
        version: counts the looks that found something changed.
    """

    def __init__(self, roots: Sequence[Path], cache: Path | None = None) -> None:
        self.roots = tuple(dict.fromkeys(roots))
        self.runs: dict[str, Run] = {}
        self.version = 0
        self._stamps: dict[str, str] = {}
        self._lock = threading.Lock()
        self._looked = float("-inf")
        places = b"\0".join(os.fsencode(root.absolute()) for root in self.roots)
        digest = hashlib.sha256(places).hexdigest()[:16]
        self._file = (cache or cache_folder() / "leaderboard") / f"runs-{_VERSION}-{digest}.parquet"
        self._load()

    @property
    def looked(self) -> bool:
        """Whether the disk was looked at since the start."""
        return self._looked > float("-inf")

    def refresh(self, patience: float = _PATIENCE) -> bool:
        """Look at the disk unless that was done `patience` seconds ago or less; whether it changed."""
        with self._lock:
            if time.monotonic() - self._looked < patience:
                return False
            changed = self._look()
            self._looked = time.monotonic()
            if changed:
                self.version += 1
                self._store()
            return changed

    def _look(self) -> bool:
        runs: dict[str, Run] = {}
        stamps: dict[str, str] = {}
        for key, folder in self._folders():
            stamps[key] = stamp(folder)
            known = self.runs.get(key) if self._stamps.get(key) == stamps[key] else None
            # Whether a run without a summary is still being written is not in its files' times.
            settled = known is not None and known.path == folder and finished(stamps[key])
            runs[key] = known if known is not None and settled else read_run(Path(folder))
        changed = runs != self.runs
        self.runs, self._stamps = runs, stamps
        return changed

    def _folders(self) -> Iterator[tuple[str, str]]:
        """Keys and run folders, each once; no key passes from one root's run to another's."""
        seen: set[str] = set()
        for place, root in enumerate(map(str, self.roots)):
            for folder in find_folders(root):
                if folder not in seen:
                    seen.add(folder)
                    yield key_of(folder, root if place == 0 else ""), folder

    def place_of(self, path: str) -> str:
        """A path as seen from the root that it lies under."""
        root = next((str(root) for root in self.roots if Path(path).is_relative_to(root)), "")
        return path[len(root) :].lstrip(os.sep) if root else path

    @property
    def where(self) -> str:
        """The roots in words."""
        return ", ".join(map(str, self.roots))

    def _load(self) -> None:
        try:
            import pyarrow.parquet as parquet

            for row in parquet.read_table(self._file).to_pylist():
                self.runs[row["key"]] = Run.from_json(json.loads(row["content"]))
                self._stamps[row["key"]] = row["stamp"]
        except FileNotFoundError:
            return
        except Exception as error:  # whatever is wrong with a cache, the folders are there
            log.info("%s: not readable (%s); made again", self._file, error)
            self.runs, self._stamps = {}, {}

    def _store(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        content = [json.dumps(run.to_json()) for run in self.runs.values()]
        stamps = [self._stamps[key] for key in self.runs]
        table = pa.table({"key": list(self.runs), "stamp": stamps, "content": content})
        scratch = None
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, scratch = tempfile.mkstemp(dir=self._file.parent, suffix=".tmp")
            os.close(handle)
            parquet.write_table(table, scratch, compression="zstd")
            Path(scratch).replace(self._file)
        except (OSError, pa.ArrowException) as error:
            log.warning("%s: cannot be kept (%s); the next start reads every run again", self._file, error)
            if scratch is not None:
                with suppress(OSError):
                    Path(scratch).unlink(missing_ok=True)


def key_of(folder: str, root: str) -> str:
    """Short name of a run folder in addresses."""
    return hashlib.sha256(os.fsencode(folder[len(root) :].lstrip(os.sep))).hexdigest()[:10]


def find_folders(root: str, depth: int = _DEPTH) -> Iterator[str]:
    """Run folders under `root`, the broken ones that lack their manifest too; links are not followed."""
    try:
        with os.scandir(root) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        if depth < _DEPTH:  # what is in it nobody knows; somebody should
            yield root
        return
    if any(entry.name in _MARKS or entry.name.startswith("responses-") for entry in found):
        yield root
    elif depth:
        for entry in found:
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield from find_folders(entry.path, depth - 1)
