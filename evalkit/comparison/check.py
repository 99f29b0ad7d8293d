"""`evalkit check`: run a model on a policy's tasks, compare with the baseline, pass or fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evalkit import registry
from evalkit.comparison.compare import Comparison, compare_runs
from evalkit.comparison.policy import Policy
from evalkit.comparison.runs import Key, resolve
from evalkit.errors import NotComparableError
from evalkit.pipeline.results import RunResult

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
        thresholds=policy.thresholds,
        alpha=policy.alpha,
        allow=policy.allow,
        with_speed=policy.speed,
    )
