"""Runs by name: what a user names (a folder, a model, a baseline) becomes run folders by task and split.

Baselines are names for runs that later ones are judged against, kept in `<output>/baselines/<name>.json`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from evalkit import registry
from evalkit.comparison import remembered
from evalkit.comparison.runs import Key, key_of, load_for_comparison, model_of
from evalkit.errors import NotComparableError, RunFolderError, UsageError
from evalkit.store import StoredRun, find_runs, load_run
from evalkit.store.atomic import read_json, write_json
from evalkit.store.folder import folder_name
from evalkit.text import command

FOLDER = "baselines"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class BaselineRun:
    """One run of a baseline.

    Attributes:
        path: the run folder. summary_sha256: content hash of its summary when the baseline was set.
    """

    key: Key
    path: Path
    model: str
    signature: str
    summary_sha256: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """A named set of runs, one a task and split, and the task files that they need."""

    name: str
    created: str
    runs: tuple[BaselineRun, ...]
    includes: tuple[remembered.TaskFile, ...] = ()

    def paths(self) -> dict[Key, Path]:
        """Run folders, each still what it was when the baseline was set.

        Raises:
            NotComparableError: a run vanished or its summary changed.
        """
        for run in self.runs:
            if not _holds_summary(run.path):
                raise NotComparableError(
                    f"baseline {self.name}: its run {run.path} ({run.key}) is gone; restore it, or "
                    f"`evalkit baseline set {self.name} RUN` anew"
                )
            if _digest(run.path) != run.summary_sha256:
                raise NotComparableError(
                    f"baseline {self.name}: the summary of {run.path} ({run.key}) changed since the baseline "
                    f"was set; if that is meant, `{command('baseline', 'set', self.name, run.path)}`"
                )
        return {run.key: run.path for run in self.runs}


def names(output: Path) -> list[str]:
    """Names of all baselines."""
    return sorted(path.stem for path in (output / FOLDER).glob("*.json"))


def exists(output: Path, name: str) -> bool:
    """Whether there is a baseline of that name."""
    return _NAME.fullmatch(name) is not None and _path(output, name).is_file()


def save(output: Path, name: str, paths: Sequence[Path]) -> Baseline:
    """Set a baseline to runs, in place of one of the same name.

    Raises:
        UsageError: an impossible name, or two runs of one task and split.
        NotComparableError: a run that could not be compared with.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"baseline {name!r}: a name is letters, digits, dots, dashes and underscores")
    runs: dict[Key, BaselineRun] = {}
    for path in paths:
        run = _describe(path)
        if run.key in runs:
            raise UsageError(f"baseline {name}: {runs[run.key].path} and {path} are both runs of {run.key}")
        runs[run.key] = run
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    includes = remembered.task_files_of(key.task for key in runs)
    baseline = Baseline(name, created, tuple(runs.values()), includes)
    target = _path(output, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target, _to_json(baseline, target.parent))
    return baseline


def load(output: Path, name: str) -> Baseline:
    """Read a baseline.

    Raises:
        UsageError: there is none of that name. NotComparableError: its file is broken.
    """
    if not exists(output, name):
        hint = registry.nearest(name, names(output))
        raise UsageError(
            f"no baseline {name!r} in {output / FOLDER}{hint}; `evalkit baseline list` shows all"
        )
    path = _path(output, name)
    try:
        content = read_json(path)
        runs = tuple(
            BaselineRun(
                key=Key(str(item["task"]), str(item["split"])),
                path=Path(os.path.normpath(path.parent / str(item["run"]).replace("\\", "/"))),
                model=str(item["model"]),
                signature=str(item["signature"]),
                summary_sha256=str(item["summary_sha256"]),
            )
            for item in content["runs"]
        )
        includes = remembered.from_json(content.get("includes", ()))
        return Baseline(name, str(content["created"]), runs, includes)
    except (RunFolderError, KeyError, TypeError, ValueError) as error:
        raise NotComparableError(f"{path}: broken ({error}); set the baseline again") from None


def _path(output: Path, name: str) -> Path:
    return output / FOLDER / f"{name}.json"


def _holds_summary(run: Path) -> bool:
    try:
        return (run / "summary.json").is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _digest(run: Path) -> str:
    return hashlib.sha256((run / "summary.json").read_bytes()).hexdigest()


def _describe(path: Path) -> BaselineRun:
    load_for_comparison(path)
    run = load_run(path)
    signature = str((run.summary or {}).get("signature", ""))
    return BaselineRun(key_of(run), path, model_of(run), signature, _digest(path))


def _to_json(baseline: Baseline, folder: Path) -> dict[str, object]:
    """Run folders are stored relative to the baseline's own, so that an output folder can be moved."""
    return {
        "name": baseline.name,
        "created": baseline.created,
        "includes": [item.to_json() for item in baseline.includes],
        "runs": [
            {
                "task": run.key.task,
                "split": run.key.split,
                "run": _relative(run.path, folder),
                "model": run.model,
                "signature": run.signature,
                "summary_sha256": run.summary_sha256,
            }
            for run in baseline.runs
        ],
    }


def _relative(path: Path, folder: Path) -> str:
    """From `folder` to `path`, with slashes on every system; absolute where they lie on different drives."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def complete_runs(folder: Path, limited: bool = False) -> Iterator[StoredRun]:
    """Complete runs below a folder in the order of their names, which begin with the time.

    Broken folders are skipped; a user who means one of them names it.

    Args:
        folder: is searched.
        limited: also runs of a part of the split that answered the whole part.
    """
    for path in find_runs(folder):
        try:
            run = load_run(path)
            summary = run.summary
        except RunFolderError:
            continue
        if summary is not None and (
            summary.get("status") in ("complete", "excerpt") or (limited and _all_of_part(summary))
        ):
            yield run


def _all_of_part(summary: Mapping[str, Any]) -> bool:
    counts = summary.get("counts", {})
    done = counts.get("answered", 0) + counts.get("errors", 0)
    return bool(summary.get("limited")) and done == counts.get("expected") and counts.get("answered", 0) > 0


def latest(runs: Iterable[StoredRun]) -> dict[Key, Path]:
    """The latest run of every task and split."""
    return {key_of(run): run.path for run in sorted(runs, key=lambda run: run.path.name)}


def asked_as(spec: str, output: Path) -> list[StoredRun]:
    """Complete runs that were started with exactly this `--model`."""
    return [run for run in complete_runs(output) if (run.manifest.get("model") or {}).get("spec") == spec]


def model_folder(output: Path, model: str) -> Path | None:
    """The folder of a model's runs, or None; a folder name is accepted in place of the model's."""
    for name in (folder_name(model), model):
        if name and (output / name).is_dir() and Path(name).name == name:
            return output / name
    return None


def model_names(output: Path) -> list[str]:
    """Folder names of the models that have runs."""
    if not output.is_dir():
        return []
    return sorted(
        path.name for path in output.iterdir() if path.is_dir() and next(find_runs(path), None) is not None
    )


def resolve(name: str, output: Path) -> dict[Key, Path]:
    """Run folders by task and split, of a run folder, a folder above runs, a baseline or a model.

    Raises:
        UsageError: there is nothing of that name. NotComparableError: it has no complete run.
    """
    path = Path(name)
    if (path / "manifest.json").is_file():
        try:
            return {key_of(load_run(path)): path}
        except RunFolderError as error:
            raise NotComparableError(str(error)) from None
    if exists(output, name):
        baseline = load(output, name)
        remembered.include(name, baseline.includes, (run.key.task for run in baseline.runs))
        return baseline.paths()
    folder = path if path.is_dir() else model_folder(output, name)
    if folder is None and (runs := asked_as(name, output)):
        return latest(runs)
    if folder is None:
        known = [*names(output), *model_names(output)]
        hint = registry.nearest(name, known)
        raise UsageError(
            f"{name}: no run folder, and no model or baseline of that name in {output}{hint}; "
            "`evalkit list runs` shows all"
        )
    if found := latest(complete_runs(folder)):
        return found
    raise NotComparableError(
        f"{folder}: no complete run below it; limited, running or broken runs must be named one by one"
    )
