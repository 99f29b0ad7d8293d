"""A comparison as JUnit XML: a test case a metric, so that CI systems list failures by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from evalkit.comparison.compare import Comparison, TaskComparison
from evalkit.comparison.verdicts import MetricResult
from evalkit.reports import wording


def comparison_junit(comparison: Comparison) -> str:
    """One suite a task; a metric that is not judged or not computed is skipped."""
    root = ElementTree.Element("testsuites", name="evalkit")
    for task in comparison.tasks:
        results = [result for result in comparison.metrics if result.key == task.key]
        failures = sum(result.failure is not None for result in results)
        task_open = _task_open(comparison, task)
        errors = sum(_open(comparison, result) for result in results) + task_open
        skipped = sum(_skipped(result) is not None for result in results)
        skipped += bool(task.undecided) and not task_open
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_text(str(task.key)),
            tests=str(len(results) + bool(task.undecided)),
            failures=str(failures),
            errors=str(errors),
            skipped=str(skipped),
        )
        for result in results:
            _case(suite, result, _open(comparison, result))
        if task.undecided:
            case = ElementTree.SubElement(suite, "testcase", classname="evalkit", name="decidable")
            kind = "error" if task_open else "skipped"
            ElementTree.SubElement(case, kind, message=_text(task.undecided))
    return _document(root)


def rows_junit(rows: Sequence[Mapping[str, Any]], fails: object) -> str:
    """One suite a task of several runs, a case for each element of `metrics` of their JSON document.

    Args:
        fails: whether what is undecided counts as an error.
    """
    root = ElementTree.Element("testsuites", name="evalkit")
    for task in dict.fromkeys(f"{row['task']}@{row['split']}" for row in rows):
        own = [row for row in rows if f"{row['task']}@{row['split']}" == task]
        kinds = [_kind(row, fails) for row in own]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_text(task),
            tests=str(len(own)),
            failures=str(kinds.count("failure")),
            errors=str(kinds.count("error")),
            skipped=str(kinds.count("skipped")),
        )
        for row, kind in zip(own, kinds, strict=True):
            named = f"{row['metric']} {row.get('name', '')}".rstrip()
            case = ElementTree.SubElement(suite, "testcase", classname="evalkit", name=_text(named))
            detail = f"{row['base']} -> {row['new']}, p {row['p_adjusted']}: {row['verdict']}"
            if kind:
                said = row["failure"] or row["undecided"] or "not judged"
                ElementTree.SubElement(case, kind, message=_text(said)).text = _text(detail)
            ElementTree.SubElement(case, "system-out").text = _text(detail)
    return _document(root)


def _kind(row: Mapping[str, Any], fails: object) -> str | None:
    if row["failure"]:
        return "failure"
    if row["undecided"]:
        return "error" if fails else "skipped"
    return None if row["judged"] else "skipped"


def refusal_junit(reason: str) -> str:
    """One case in error where nothing could be compared."""
    root = ElementTree.Element("testsuites", name="evalkit")
    suite = ElementTree.SubElement(
        root, "testsuite", name="evalkit", tests="1", failures="0", errors="1", skipped="0"
    )
    case = ElementTree.SubElement(suite, "testcase", classname="evalkit", name="comparable")
    ElementTree.SubElement(case, "error", message=_text(reason)).text = _text(reason)
    return _document(root)


def _open(comparison: Comparison, result: MetricResult) -> bool:
    return result.undecided is not None and comparison.undecided != "pass"


def _task_open(comparison: Comparison, task: TaskComparison) -> bool:
    return task.undecided is not None and comparison.undecided != "pass"


def _case(suite: ElementTree.Element, result: MetricResult, undecided: bool) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=_text(f"evalkit.{result.key.task}"), name=_text(result.name)
    )
    detail = ", ".join(
        f"{name} {cell}" for name, cell in zip(wording.HEADER[1:], wording.cells(result)[1:], strict=True)
    )
    if result.failure:
        ElementTree.SubElement(case, "failure", message=_text(result.failure)).text = _text(detail)
    elif undecided:
        message = _text(f"undecided: {result.undecided}")
        ElementTree.SubElement(case, "error", message=message).text = _text(detail)
    elif why := _skipped(result):
        ElementTree.SubElement(case, "skipped", message=_text(why))
    ElementTree.SubElement(case, "system-out").text = _text("\n".join([detail, *result.notes]))


def _skipped(result: MetricResult) -> str | None:
    if result.failure or result.undecided:
        return None
    if not result.judged:
        return "not judged: no threshold names it"
    return result.difference.reason or "not computed" if result.difference.p is None else None


def _document(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _text(text: str) -> str:
    """Text without the characters that XML 1.0 cannot hold."""
    return "".join(
        c if c in "\t\n" or (c >= " " and c not in "\ufffe\uffff" and not 0xD800 <= ord(c) < 0xE000) else "�"
        for c in text
    )
