"""A run's values as an HTML table, for notebooks; every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from evalkit.text import one_line, value_text


def score_table(run: Mapping[str, Any]) -> str:
    """One element of `runs` as a table of its scores."""
    counts = run["counts"]
    head = (
        f"{run['model']} · {run['task']} · split {run['split']} · protocol {run['protocol']}: "
        f"{run['status']}, {counts['answered']} of {counts['expected']} samples answered, "
        f"{counts['errors']} errors"
    )
    rows = []
    for name, content in run["metrics"].items():
        unit, interval = content["unit"], content.get("ci95")
        shown = f"[{value_text(interval[0], unit)}, {value_text(interval[1], unit)}]" if interval else "-"
        said = content.get("reason") or content.get("note") or ""
        rows.append([name, value_text(content["value"], unit), shown, content["n"], unit, said])
    notes = [f"NON-STANDARD: {name}={value}" for name, value in run.get("nonstandard", {}).items()]
    notes += [f"NOTE: {note}" for note in (*run.get("notes", ()), *filter(None, [run.get("reason")]))]
    foot = [*notes, f"signature {run['signature']}", f"run folder {run['run']}"]
    return html_table(("metric", "value", "95% interval", "n", "unit", ""), rows, head, foot)


def html_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], head: str = "", foot: Sequence[str] = ()
) -> str:
    """A table with a caption above and lines below."""
    cells = "".join(f"<th>{_text(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    lines = "".join(f"<div><small>{_text(line)}</small></div>" for line in foot)
    caption = f"<caption>{_text(head)}</caption>" if head else ""
    return f"<div><table>{caption}<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>{lines}</div>"


def _text(value: object) -> str:
    return escape(one_line(str(value)))
