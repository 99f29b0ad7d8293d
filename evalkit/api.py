"""`evalkit.run`: the main job from Python, with the names of the command line's flags."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit import registry
from evalkit.contracts import Model
from evalkit.engines.base import Engine, as_engine
from evalkit.errors import UsageError
from evalkit.pipeline.keywords import called_with
from evalkit.pipeline.options import PathLike, RunKeywords, RunOptions, options_of
from evalkit.pipeline.results import RunResult
from evalkit.pipeline.run import load_model, run_task


@dataclass(frozen=True)
class RunCall(RunKeywords):
    """The arguments of `evalkit.run`: its own, and every option of a run."""

    model: str | Model | Engine
    task: str
    include: PathLike | None = dataclasses.field(default=None, kw_only=True)


@called_with(RunCall)
def run(call: RunCall) -> RunResult:
    """Generate what the run folder lacks, score it, and return the result.

    Args:
        model: a name, folder or hub id, or a loaded model (any object that follows `Model`, or `Engine`).
        task: one task, `task` or `task@split`; call again for another.
        include: a task file that is not installed.
        The others are the options of `evalkit run`, listed below; `gen` may be a mapping.

    Raises:
        EvalkitError: with one line that says what, where and the fix.
    """
    if call.include is not None:
        registry.include(Path(call.include))
    targets = registry.targets([call.task], call.split)
    if len(targets) != 1:
        raise UsageError(
            f"evalkit.run runs one task, {call.task!r} names {len(targets)}; call it for each of them"
        )
    keywords: dict[str, Any] = {name: getattr(call, name) for name in options_of(RunKeywords)}
    name = call.model if isinstance(call.model, str) else call.model.info.name
    options = RunOptions(name, **{**keywords, "split": targets[0].split})
    options.check()
    if not isinstance(call.model, str):
        return run_task(targets[0].task, as_engine(call.model), options)
    loaded = load_model(options)
    try:
        return run_task(targets[0].task, loaded, options)
    finally:
        loaded.close()
