"""From what the user names (a folder, a model, a baseline) to runs that can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from evalkit import registry
from evalkit.contracts import Record
from evalkit.errors import NotComparableError, RunFolderError, UsageError
from evalkit.pipeline.results import describe
from evalkit.store import StoredRun, find_runs, load_run
from evalkit.store.names import folder_name
from evalkit.task import Task


class Key(NamedTuple):
    """What a run measures; runs are compared with runs of the same key."""

    task: str
    split: str

    def __str__(self) -> str:
        return f"{self.task}@{self.split}"


@dataclass(frozen=True)
class Side:
    """One complete run, read for a comparison.

    Attributes:
        model: name as in the run. signature: fields of the signature by name.
        request_keys: request hash by sample id. seconds: model time by sample id.
    """

    path: Path
    key: Key
    model: str
    task: Task
    records: Sequence[Record]
    signature: Mapping[str, str]
    request_keys: Mapping[str, str]
    seconds: Mapping[str, float] = field(default_factory=dict)


def signature_fields(signature: str) -> dict[str, str]:
    """Fields of a signature by name; the first three are task, version and split."""
    named = dict(zip(("task", "version", "split"), signature.split("|")[:3], strict=False))
    for part in signature.split("|")[3:]:
        name, _, value = part.partition(":")
        named[name] = value
    return named


def load_side(path: Path) -> Side:
    """Read a run.

    Raises:
        NotComparableError: in progress, broken off, cut, empty, with repeated ids, or of an unknown task.
    """
    try:
        run = load_run(path)
        summary = _summary(run)
        records, request_keys = run.records(), run.request_keys()
        responses = run.responses()
    except RunFolderError as error:
        raise NotComparableError(str(error)) from None
    named = _manifest_part(run, "task")
    try:
        task = registry.task(str(named.get("name")), str(named.get("protocol")))
    except UsageError as error:
        raise NotComparableError(f"{path}: {error}") from None
    _check_records(path, records, summary)
    lost = [record.id for record in records if record.id not in responses]
    if lost and any(path.glob("responses-*.jsonl")):  # a baseline may be kept without them
        raise NotComparableError(
            f"{path}: responses of {len(lost)} scored samples are gone (first: {lost[0]}): "
            "a file was cut; give the `evalkit run` command again"
        )
    return Side(
        path=path,
        key=Key(task.name, str(named.get("split"))),
        model=str(summary.get("model", "")),
        task=task,
        records=records,
        signature={**signature_fields(str(summary.get("signature", ""))), "protocol": task.protocol},
        request_keys=request_keys,
        seconds={name: stored.response.seconds for name, stored in responses.items()},
    )


def _summary(run: StoredRun) -> dict[str, Any]:
    if run.summary is not None:
        return describe(run)
    what = "is still running" if run.status == "running" else "was broken off before its end"
    mend = "wait for it" if run.status == "running" else "give its `evalkit run` command again to finish it"
    raise NotComparableError(f"{run.path}: the run {what} (no summary.json); {mend}")


def _manifest_part(run: StoredRun, name: str) -> Mapping[str, Any]:
    part = run.manifest.get(name)
    if not isinstance(part, Mapping):
        raise NotComparableError(f"{run.path}: manifest.json lacks {name!r}; restore it")
    return part


def _check_records(path: Path, records: Sequence[Record], summary: Mapping[str, Any]) -> None:
    if not records:
        raise NotComparableError(f"{path}: the run is empty: no samples to compare")
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise NotComparableError(
                f"{path}: sample id {record.id!r} occurs twice; make the records again: "
                f"`evalkit score {path}`"
            )
        seen.add(record.id)
    counts = summary.get("counts")
    expected = counts.get("answered", 0) + counts.get("errors", 0) if isinstance(counts, Mapping) else None
    if expected != len(records):
        raise NotComparableError(
            f"{path}: {len(records)} records but the summary counts {expected}: a file was cut; "
            f"make both again: `evalkit score {path}`"
        )
    if all(record.failed for record in records):
        raise NotComparableError(f"{path}: no sample was answered: nothing to compare")


def key_of(run: StoredRun) -> Key:
    """Task and split of a run. Raises NotComparableError where the manifest does not say."""
    named = _manifest_part(run, "task")
    return Key(str(named.get("name")), str(named.get("split")))


def model_of(run: StoredRun) -> str:
    """Name of a run's model. Raises NotComparableError where the manifest does not say."""
    return str(_manifest_part(run, "model").get("name", ""))


def complete_runs(folder: Path, limited: bool = False) -> Iterator[StoredRun]:
    """Complete runs below a folder in the order of their names, which begin with the time.

    Broken folders are passed over: somebody who means one of them names it.

    Args:
        folder: is searched.
        limited: also runs of a part of the split that answered all of that part.
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
    """Complete runs whose model was asked for by these very words (`--model`)."""
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
    from evalkit.comparison import baselines

    path = Path(name)
    if (path / "manifest.json").is_file():
        try:
            return {key_of(load_run(path)): path}
        except RunFolderError as error:
            raise NotComparableError(str(error)) from None
    if baselines.exists(output, name):
        return baselines.load(output, name).paths()
    folder = path if path.is_dir() else model_folder(output, name)
    if folder is None and (runs := asked_as(name, output)):
        return latest(runs)
    if folder is None:
        known = [*baselines.names(output), *model_names(output)]
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
