"""`evalkit compare` with more than two runs: the best of several, recipes, or each against the base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from evalkit.cli import terminal
from evalkit.errors import UsageError


def recipe_sides(
    base: str | None, new: Sequence[str], base_runs: Sequence[str], new_runs: Sequence[str]
) -> tuple[Sequence[str], Sequence[str]] | None:
    """The runs of two recipes, named by flags or by globs in place of BASE and NEW; None for single runs.

    Raises:
        UsageError: too few or too many runs are named.
    """
    from evalkit.comparison.recipes import is_glob

    plain = [*([base] if base is not None else []), *new]
    if base_runs or new_runs:
        if (base_runs and new_runs and plain) or not (base_runs or len(plain) == 1 or not new_runs):
            raise UsageError(
                "--base-runs and --new-runs take the places of BASE and NEW: name each side once"
            )
        sides = base_runs or plain, new_runs or plain
        if not (sides[0] and sides[1]):
            raise UsageError("--base-runs, --new-runs: name the runs of both sides")
        return sides
    if len(plain) < 2:
        raise UsageError("write evalkit compare BASE NEW, or --base-runs and --new-runs")
    return ([plain[0]], plain[1:]) if len(plain) == 2 and any(map(is_glob, plain)) else None


def recipes(
    base: Sequence[str], new: Sequence[str], output: Path, settings: Mapping[str, Any], style: str
) -> int:
    """Compare two recipes and print the result; returns the exit status."""
    from evalkit.comparison.recipes import compare_recipes, expand, recipes_json
    from evalkit.reports.recipes import recipes_markdown, recipes_text

    sides = expand(base, output, "--base-runs"), expand(new, output, "--new-runs")
    found = compare_recipes(*sides, **settings)
    _print(found, style, recipes_json, recipes_text, recipes_markdown)
    return found.exit_code


def best_of(
    base: str, new: Sequence[str], output: Path, metric: str | None, settings: Mapping[str, Any], style: str
) -> int:
    """Choose among runs and print the result; returns the exit status."""
    from evalkit.comparison.baselines import resolve
    from evalkit.comparison.best_of import best_of_json, compare_best_of
    from evalkit.comparison.recipes import expand
    from evalkit.reports.best_of import best_of_markdown, best_of_text

    runs = expand(new, output, "NEW")
    found = compare_best_of(
        resolve(base, output), [*runs.values()], names=(base, [*runs]), metric=metric, **settings
    )
    _print(found, style, best_of_json, best_of_text, best_of_markdown)
    return found.exit_code


def each(base: str, new: Sequence[str], output: Path, settings: Mapping[str, Any], style: str) -> int:
    """Compare every run with the base by itself and print all; returns the exit status."""
    import functools

    from evalkit import reports
    from evalkit.comparison.baselines import resolve
    from evalkit.comparison.compare import compare_runs
    from evalkit.comparison.many import Comparisons, comparisons_json
    from evalkit.comparison.recipes import expand
    from evalkit.comparison.runs import load_for_comparison

    load = functools.cache(load_for_comparison)  # the base is read once
    sides = resolve(base, output), expand(new, output, "NEW")
    found = Comparisons(
        tuple(
            compare_runs(sides[0], paths, names=(base, name), load=load, **settings)
            for name, paths in sides[1].items()
        )
    )

    def text(write: Callable[[Any], str]) -> Callable[[Comparisons], str]:
        return lambda many: "\n\n".join([*(write(one).rstrip("\n") for one in many.each), many.reason])

    _print(found, style, comparisons_json, text(reports.comparison_text), text(reports.comparison_markdown))
    return found.exit_code


def _print(
    found: Any,
    style: str,
    as_json: Callable[[Any], dict[str, Any]],
    as_text: Callable[[Any], str],
    as_markdown: Callable[[Any], str],
) -> None:
    from evalkit.reports.junit import rows_junit

    if style == "json":
        terminal.print_json(as_json(found))
    elif style == "junit":
        click.echo(
            rows_junit(as_json(found)["metrics"], found.verdict != "undecided" or found.exit_code).rstrip()
        )
    else:
        click.echo((as_text if style == "table" else as_markdown)(found))
