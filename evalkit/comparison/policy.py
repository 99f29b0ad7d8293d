"""`evalkit check`: a policy in `evalkit.toml`, or `[tool.evalkit]` of pyproject.toml, and the gate by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit import registry
from evalkit.comparison.baselines import resolve
from evalkit.comparison.compare import Comparison, compare_runs, settings
from evalkit.comparison.runs import Key
from evalkit.doors import read_toml
from evalkit.errors import NotComparableError, UsageError
from evalkit.pipeline.comparison_options import ComparisonOptions
from evalkit.pipeline.options import Entry, RunSettings, current_name, options_of
from evalkit.pipeline.results import RunResult

FILE_NAME = "evalkit.toml"

_KEYS = ("baseline", "tasks", "output", "run", "include", *options_of(ComparisonOptions))


@dataclass(frozen=True, slots=True)
class Policy:
    """What `evalkit check` runs and demands.

    Attributes:
        path: its file; relative paths count from the file's folder.
        baseline: a baseline's name, a run folder or a model. tasks: names, `task@split` or suites.
        options: of the comparison. run: options of a run by name.
    """

    path: Path
    baseline: str
    tasks: tuple[str, ...]
    output: Path = Path("runs")
    options: ComparisonOptions = field(default_factory=ComparisonOptions)
    run: Mapping[str, Any] = field(default_factory=dict)


def find(folder: Path) -> Path:
    """The policy file of a folder.

    Raises:
        UsageError: there is none.
    """
    if (folder / FILE_NAME).is_file():
        return folder / FILE_NAME
    project = folder / "pyproject.toml"
    if project.is_file() and _table(project, read_toml(project)) is not None:
        return project
    raise UsageError(
        f"no policy: neither {FILE_NAME} nor [tool.evalkit] in pyproject.toml here; write one "
        "(docs/gates.md) or name it with --policy FILE"
    )


def load(path: Path) -> Policy:
    """Read a policy.

    Raises:
        UsageError: missing, not TOML, an unknown key (nearest ones named) or a value of the wrong kind.
    """
    table = _table(path, read_toml(path))
    if table is None:
        raise UsageError(f"{path}: no [tool.evalkit]; write one (docs/gates.md)")
    content = _known(table, _KEYS, str(path))
    for name in _includes(content, path):
        registry.include(name)
    tasks = _texts(content, "tasks", path)
    if not tasks or "baseline" not in content:
        raise UsageError(f"{path}: `baseline` and `tasks` must be given")
    return Policy(
        path=path,
        baseline=_value(content, "baseline", str, path),
        tasks=tasks,
        output=path.parent / _value(content, "output", str, path, "runs"),
        options=_comparison(content, path),
        run=_run(content, path),
    )


def _table(path: Path, content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if path.name != "pyproject.toml":
        return content
    tool = content.get("tool")
    table = tool.get("evalkit") if isinstance(tool, Mapping) else None
    return table if isinstance(table, Mapping) else None


def _known(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> dict[str, Any]:
    """The table, with underscores for dashes in its keys."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            hint = registry.nearest(name, known)
            raise UsageError(f"{where}: unknown key {key!r}{hint}; there are {', '.join(known)}")
        found[name] = value
    return found


def _value(content: Mapping[str, Any], key: str, kind: type, path: Path, default: Any = None) -> Any:
    value = content.get(key, default)
    if not isinstance(value, kind):
        raise UsageError(f"{path}: {key} must be a {'true or false' if kind is bool else 'text'}")
    return value


def _texts(content: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    value = content.get(key, ())
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise UsageError(f"{path}: {key} must be a list of texts")
    return tuple(value)


def _includes(content: Mapping[str, Any], path: Path) -> list[Path]:
    """Files, folders and packages of tasks, from the policy's folder."""
    value = content.get("include", ())
    names = (value,) if isinstance(value, str) else _texts(content, "include", path)
    return [path.parent / Path(name).expanduser() for name in names]


def _comparison(content: Mapping[str, Any], path: Path) -> ComparisonOptions:
    known = options_of(ComparisonOptions)
    given = {name: value for name, value in content.items() if name in known}
    _check_kinds(given, known, f"{path}: ")
    found = ComparisonOptions(**given)
    try:
        found.check()
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return found


def _check_kinds(values: Mapping[str, Any], options: Mapping[str, Entry], where: str) -> None:
    for key, value in values.items():
        kinds = options[key].kinds
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise UsageError(f"{where}{key} = {value!r}: must be of type {names}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise UsageError(f"{where}{key} = {value!r}: must be a list of texts")


def _run(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    table = content.get("run", {})
    if not isinstance(table, Mapping):
        raise UsageError(f"{path}: run must be a table of options")
    options = options_of(RunSettings)
    named = {current_name(key, RunSettings): value for key, value in table.items()}
    flags = _known(named, tuple(options), f"{path}: [run]")
    _check_kinds(flags, options, f"{path}: [run] ")
    if "data_root" in flags:
        flags["data_root"] = str(path.parent / flags["data_root"])
    return flags


#: Runs one task@split of a loaded model.
Runner = Callable[[Key], RunResult]


def targets(policy: Policy) -> list[Key]:
    """What the policy runs.

    Raises:
        UsageError: unknown tasks or suites.
    """
    found = registry.targets(policy.tasks, policy.run.get("split"))
    return [Key(t.task, t.split or registry.task(t.task).splits[0]) for t in found]


def baseline_runs(policy: Policy) -> dict[Key, Path]:
    """The baseline's runs of the policy's tasks; called before anything is generated.

    Raises:
        NotComparableError: the baseline lacks one. UsageError: there is no such baseline.
    """
    base = resolve(policy.baseline, policy.output)
    wanted = targets(policy)
    if lacking := [key for key in wanted if key not in base]:
        raise NotComparableError(
            f"baseline {policy.baseline}: has no run of {', '.join(map(str, lacking))}; add it with "
            f"`evalkit baseline set {policy.baseline} RUN …`"
        )
    return {key: base[key] for key in wanted}


def check(policy: Policy, model: str, base: dict[Key, Path], run: Runner) -> Comparison:
    """Run every task and judge the results.

    Raises:
        EvalkitError: a task that cannot be run. NotComparableError: a result unlike the baseline's.
    """
    new = {key: run(key).path for key in base}
    return compare_runs(
        base,
        new,
        names=(policy.baseline, model),
        **settings(policy.options),
    )
