"""What `evalkit compare` prints: of two runs, of several, of the best of them, of recipes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli import terminal

if TYPE_CHECKING:
    from evalkit.comparison.api import Outcome
    from evalkit.comparison.many import Comparisons


def print_outcome(found: Outcome, style: str) -> None:
    """Print a comparison of any kind on stdout as a table, JSON, Markdown or JUnit."""
    from evalkit.comparison.best_of import BestOfComparison, best_of_json
    from evalkit.comparison.compare import Comparison, comparison_json
    from evalkit.comparison.many import Comparisons, comparisons_json
    from evalkit.comparison.recipes import RecipeComparison, recipes_json
    from evalkit.reports.best_of import best_of_markdown, best_of_text
    from evalkit.reports.junit import comparison_junit, rows_junit
    from evalkit.reports.markdown import comparison_markdown
    from evalkit.reports.recipes import recipes_markdown, recipes_text
    from evalkit.reports.table import comparison_text

    writers: dict[type, tuple[Callable[[Any], Any], Callable[[Any], str], Callable[[Any], str]]] = {
        Comparison: (comparison_json, comparison_text, comparison_markdown),
        Comparisons: (comparisons_json, _each(comparison_text), _each(comparison_markdown)),
        BestOfComparison: (best_of_json, best_of_text, best_of_markdown),
        RecipeComparison: (recipes_json, recipes_text, recipes_markdown),
    }
    as_json, as_text, as_markdown = writers[type(found)]
    if style == "json":
        terminal.print_json(as_json(found))
    elif style != "junit":
        click.echo((as_text if style == "table" else as_markdown)(found).rstrip("\n"))
    elif isinstance(found, Comparison):
        click.echo(comparison_junit(found).rstrip("\n"))
    else:
        decided = found.verdict != "undecided" or bool(found.exit_code)
        click.echo(rows_junit(as_json(found)["metrics"], decided).rstrip())


def _each(write: Callable[[Any], str]) -> Callable[[Comparisons], str]:
    return lambda many: "\n\n".join([*(write(one).rstrip("\n") for one in many.each), many.reason])
