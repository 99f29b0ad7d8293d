"""Comparisons as text for people, Markdown for pull requests and JUnit for the test tab of a CI system."""

from __future__ import annotations

from evalkit.reports.junit import comparison_junit, refusal_junit
from evalkit.reports.markdown import comparison_markdown, refusal_markdown
from evalkit.reports.table import comparison_text

__all__ = [
    "comparison_junit",
    "comparison_markdown",
    "comparison_text",
    "refusal_junit",
    "refusal_markdown",
]
