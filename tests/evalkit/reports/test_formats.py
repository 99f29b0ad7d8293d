"""Refusals in machine formats, whatever the reason holds."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from evalkit.reports.junit import refusal_junit
from evalkit.reports.markdown import refusal_markdown
from evalkit.reports.wording import signed

NASTY = 'run\x00s <a> & "b" | `c`\nnext \ud800 \uffff ]]>'


def test_junit_is_well_formed_whatever_the_reason_holds() -> None:
    suite = ElementTree.fromstring(refusal_junit(NASTY).encode("utf-8")).find("testsuite")
    assert suite is not None and suite.get("errors") == "1"
    error = suite.find("testcase/error")
    assert error is not None and error.text is not None
    assert '<a> & "b" | `c`' in error.text and "\x00" not in error.text


def test_markdown_leaves_no_markup_of_the_reason() -> None:
    text = refusal_markdown(NASTY)
    assert text.startswith("### ⚠️ evalkit: not comparable")
    assert "<a>" not in text and "\\`c\\`" in text and "\\|" in text and "\x00" not in text


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(1.234, "percent", "+1.23"), (-0.5, "percent", "-0.50"), (0.0, "", "0.00"), (None, "", "-"),
     (0.01234, "fraction", "+0.0123"), (0.0012, "percent", "+0.0012")],
)  # fmt: skip
def test_changes_carry_their_sign(value: float | None, unit: str, shown: str) -> None:
    assert signed(value, unit) == shown
