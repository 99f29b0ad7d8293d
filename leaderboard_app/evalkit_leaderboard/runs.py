"""One run folder as the leaderboard knows it, whatever the folder holds."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from evalkit.comparison.alike import Measured, measured
from evalkit.errors import EvalkitError, RunFolderError
from evalkit.store import shapes
from evalkit.text import one_line

T = TypeVar("T")

MANIFEST, SUMMARY, RECORDS = "manifest.json", "summary.json", "records.parquet"

#: A manifest or summary of more bytes is not one of ours.
_LARGEST_JSON = 64 << 20
#: Characters kept of a name, and of a reason or note.
_NAME, _SENTENCE = 300, 1000
_STEP = re.compile(r"(\d{1,15})$")


@dataclass(frozen=True, slots=True)
class MetricCell:
    """A metric's value with what it rests on; `value` is None where there is none, for `reason`."""

    value: float | None
    unit: str = ""
    n: int = 0
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """What the index keeps of a run folder.

    Attributes:
        path: the folder. status: as in `evalkit list runs`, or `broken`, for `reason`.
        model: as in reports. weights: fingerprint, or what else tells two checkpoints apart.
        counts: expected, answered, errors, unparsed, truncated.
        measured: what it may be compared with.
        nonstandard: settings in place of the protocol's own. notes: words every output must carry.
        speed, tokens_per_second, memory: of the last session; bytes.
    """

    path: str
    status: str
    reason: str = ""
    model: str = ""
    weights: str = ""
    task: str = ""
    title: str = ""
    split: str = ""
    protocol: str = ""
    created: str = ""
    signature: str = ""
    measured: Measured = field(default_factory=Measured)
    limited: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, MetricCell] = field(default_factory=dict)
    nonstandard: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    parameters: int | None = None
    device: str = ""
    engine: str = ""
    dtype: str = ""
    speed: float | None = None
    tokens_per_second: float | None = None
    memory: int | None = None
    scored: bool = False

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.path)

    @property
    def series(self) -> str:
        """The model's name without the step that its checkpoint ends in."""
        base, at, checkpoint = self.model.rpartition("@")
        return f"{base}{at}{_STEP.sub('', checkpoint).rstrip('-_')}".rstrip("@") if at else self.model

    @property
    def step(self) -> int | None:
        """The training step that the checkpoint's name ends in."""
        _, at, checkpoint = self.model.rpartition("@")
        found = _STEP.search(checkpoint) if at else None
        return int(found[1]) if found else None

    def to_json(self) -> dict[str, Any]:
        """Plain content for the cache."""
        content = {name: getattr(self, name) for name in self.__slots__}
        content["measured"] = [self.measured.fields, self.measured.data, self.measured.older_data]
        content["metrics"] = {
            name: [f.value, f.unit, f.n, f.low, f.high, f.reason] for name, f in self.metrics.items()
        }
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Run:
        """The inverse of `to_json`. Raises TypeError or KeyError for what another version wrote."""
        metrics = {name: MetricCell(*values) for name, values in content["metrics"].items()}
        notes, measured = tuple(content["notes"]), Measured(*content["measured"])
        return cls(**{**content, "metrics": metrics, "measured": measured, "notes": notes})


def stamp(folder: str) -> str:
    """Changes whenever the folder's manifest, summary or records do."""
    return " ".join([_stamp(f"{folder}{os.sep}{name}") for name in (MANIFEST, SUMMARY, RECORDS)])


def _stamp(path: str) -> str:
    """Change time and size; strings and os.stat, since a look at thousands of runs waits for nothing else."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return "-"
    return f"{status.st_mtime_ns}.{status.st_size}"


def finished(stamp: str) -> bool:
    """Whether a folder with that stamp has a summary."""
    return stamp.split(" ")[1] != "-"


def read_run(folder: Path) -> Run:
    """Read a run folder; one that is broken in any way is described as such."""
    try:
        manifest = _read(folder / MANIFEST, shapes.MANIFEST)
    except (RunFolderError, OSError, ValueError, RecursionError) as error:
        return Run(path=str(folder), status="broken", reason=one_line(str(error), _SENTENCE))
    try:
        summary = _read(folder / SUMMARY, shapes.SUMMARY) if (folder / SUMMARY).exists() else {}
        status, reason = (_text(summary, "status"), "") if summary else _unfinished(folder, manifest)
        return _described(folder, manifest, summary, status or "failed", reason)
    except (RunFolderError, OSError, ValueError, RecursionError) as error:
        found = _described(folder, manifest, {}, "broken", one_line(str(error), _SENTENCE))
        return replace(found, scored=False)


def _read(path: Path, shape: Mapping[str, shapes.Check]) -> dict[str, Any]:
    from evalkit.store.atomic import read_json

    if path.exists() and (not path.is_file() or path.stat().st_size > _LARGEST_JSON):
        raise RunFolderError(f"{path}: not a file that evalkit wrote; delete the run folder")
    return shapes.checked(read_json(path), shape, path)


def _unfinished(folder: Path, manifest: Mapping[str, Any]) -> tuple[str, str]:
    from evalkit.store.lock import is_held

    outcome = _part(manifest, "outcome")
    if is_held(folder):
        return "running", ""
    reason = _text(outcome, "reason", _SENTENCE) or "broken off; the same `evalkit run` command goes on"
    return ("failed" if outcome.get("status") == "failed" else "partial"), reason


def _described(
    folder: Path, manifest: Mapping[str, Any], summary: Mapping[str, Any], status: str, reason: str
) -> Run:
    model, task = _part(manifest, "model"), _part(manifest, "task")
    selection, settings = _part(manifest, "selection"), _part(manifest, "settings")
    counts = _part(summary, "counts") or {"expected": selection.get("expected")}
    nonstandard = _part(summary, "nonstandard") or _part(settings, "nonstandard")
    notes = summary.get("notes") or model.get("notes") or ()
    signed = next(
        (text for part in (summary, manifest) if isinstance(text := part.get("signature"), str)), ""
    )
    protocol = _text(summary, "protocol") or _text(task, "protocol") or "unknown"
    speed = _last_session(manifest)
    throughput, memory = _part(speed, "throughput"), _part(speed, "peak_memory")
    return Run(
        path=str(folder),
        status=status,
        reason=reason or _text(summary, "reason", _SENTENCE),
        model=_text(summary, "model") or _text(model, "name") or "unknown",
        weights=_text(model, "fingerprint") or _text(manifest, "identity"),
        task=_text(summary, "task") or _text(task, "name") or "unknown",
        title=_text(summary, "title") or _text(task, "title"),
        split=_text(summary, "split") or _text(task, "split") or "unknown",
        protocol=protocol,
        created=_text(manifest, "created"),
        signature=one_line(signed[: _SENTENCE + 1], _SENTENCE),
        measured=measured(signed, protocol, manifest),
        limited=bool(summary.get("limited") or selection.get("limited")),
        counts={one_line(str(name), 40): _count(value) for name, value in counts.items()},
        metrics=_metrics(_part(summary, "metrics")),
        nonstandard={one_line(str(k), 80): one_line(str(v), 80) for k, v in nonstandard.items()},
        notes=tuple(one_line(str(n), _SENTENCE) for n in notes) if isinstance(notes, (list, tuple)) else (),
        parameters=_count(model.get("parameters")) or None,
        device=_text(model, "device"),
        engine=_text(model, "engine"),
        dtype=_text(model, "dtype"),
        speed=_number(throughput.get("samples_per_second")),
        tokens_per_second=_number(throughput.get("new_tokens_per_second")),
        memory=_count(memory.get("device_bytes") or memory.get("host_bytes")) or None,
        scored=(folder / RECORDS).is_file(),
    )


def _metrics(metrics: Mapping[str, Any]) -> dict[str, MetricCell]:
    found = {}
    for name, content in metrics.items():
        if isinstance(content, Mapping):
            interval = content.get("ci95")
            ends = interval if isinstance(interval, (list, tuple)) and len(interval) == 2 else (None, None)
            low, high = (_number(end) for end in ends)
            found[one_line(str(name), _NAME)] = MetricCell(
                _number(content.get("value")),
                _text(content, "unit"),
                _count(content.get("n")),
                low if high is not None else None,
                high if low is not None else None,
                _text(content, "reason", _SENTENCE),
            )
    return found


def _last_session(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    sessions = manifest.get("sessions")
    last = sessions[-1] if isinstance(sessions, list) and sessions else None
    return last if isinstance(last, Mapping) else {}


def _part(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = content.get(name)
    return part if isinstance(part, Mapping) else {}


def _text(content: Mapping[str, Any], name: str, limit: int = _NAME) -> str:
    value = content.get(name)
    text = value if isinstance(value, str) else json.dumps(value)
    return "" if value is None else one_line(text[: limit + 1], limit)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _count(value: Any) -> int:
    number = _number(value)
    return int(number) if number is not None and 0 <= number < 2**62 else 0


def or_reason(compute: Callable[[], T]) -> T | str:
    """What is computed from run folders, or why it cannot be, in a line."""
    try:
        return compute()
    except EvalkitError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: cannot be read ({error.strerror})"
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return f"a run folder holds what evalkit did not write ({type(error).__name__}: {error})"
