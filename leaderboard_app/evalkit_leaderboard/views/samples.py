"""Samples: image, question, answer, target and scores of one sample after the other."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from evalkit import registry
from evalkit.comparison.alike import refusal
from evalkit.errors import EvalkitError, RunFolderError
from evalkit.task import Region, Task
from evalkit.text import one_line, visible
from evalkit_leaderboard import components, keys, overlays, records, state, theme
from evalkit_leaderboard.components import Quote, escape
from evalkit_leaderboard.context import Context
from evalkit_leaderboard.naming import run_names
from evalkit_leaderboard.records import OUTCOMES, Filter, Outcome, Rows, Sample, Table
from evalkit_leaderboard.runs import Run

#: Samples on one page of the list.
_PAGE = 50
#: Tags that are offered; those with a row of buttons, and the most values of such a row.
_TAGS, _BUTTONS, _FEW = 12, 2, 6
#: Another filter starts at its first sample.
_ANEW = ("sample",)
_NONE = "none"
_ZOOMS = ("fit", "100%", "200%", "400%")
_SEARCHED = "id, question, answer, target"
_FLAGS = ("", "unparsed", "truncated", "near_miss", "error")


def render(context: Context) -> None:
    """The page."""
    st.title("Samples", anchor=False)
    scored = {key: run for key, run in context.runs.items() if run.scored}
    if not scored:
        components.box(
            "No scored run yet. A run shows its samples here once it has been scored:",
            "evalkit run -m mini-internvl-tiny -t dior-rsvg --split miniature",
        )
        return
    ordered, names = _choices(scored)
    scored = {key: scored[key] for key in ordered}
    key = state.choose(
        "run",
        "Run",
        ordered,
        ordered[0],
        names.__getitem__,
        context.why_not,
        below=("sample", "other", "disagree", "score", "tag."),
    )
    run = scored[key]
    try:
        wanted, other = _filter(context, scored, key, names)
        _browse(run, wanted, other)
    except RunFolderError as error:
        components.box(str(error), warn=True)


def _choices(scored: Mapping[str, Run]) -> tuple[list[str], dict[str, str]]:
    """Keys newest first, and their names."""
    ordered = sorted(scored, key=lambda key: scored[key].created, reverse=True)
    names: dict[str, str] = {}
    targets: dict[str, dict[str, Run]] = {}
    for key in ordered:
        run = scored[key]
        targets.setdefault(f"{run.task}@{run.split}", {})[key] = run
    for target, runs in targets.items():
        names |= {key: f"{one_line(target, 60)} · {name}" for key, name in run_names(runs).items()}
    return ordered, names


def _filter(
    context: Context, scored: Mapping[str, Run], key: str, names: Mapping[str, str]
) -> tuple[Filter, Run | None]:
    """What the reader wants to see, and the run it is set beside."""
    run = scored[key]
    table = records.table(run.folder)
    quick = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    line = st.container(horizontal=True, vertical_alignment="bottom")
    with line:
        usual = usual_score(run, table.scores)
        score = state.choose("score", "Score", table.scores or [_NONE], usual, below=_ANEW, width=160)
        text = state.search("text", "Search texts", below=_ANEW, placeholder=_SEARCHED, width=260)
    with quick:
        outcome = _outcome(table, score)
    same = [k for k, r in scored.items() if k != key and (r.task, r.split) == (run.task, run.split)]
    with line:
        disagree = bool(same) and state.switch("disagree", "Only disagreements", below=_ANEW)
        other = _beside(context, scored, key, same, names, disagree)
    tags = _tags(table, quick, line)
    folder = other.folder if other is not None and disagree else None
    with line, st.popover("Flags", icon=":material/filter_list:"):
        flag = state.choose("flag", "Flag", _FLAGS, "", _any, below=_ANEW)
    return Filter(score, outcome, tags, flag, text, folder), other


def _outcome(table: Table, score: str) -> Outcome:
    """Buttons of the outcomes that there are, with their counts."""
    counts = table.counts(score)
    offered = [name for name in OUTCOMES if counts[name] or name in ("all", state.given("outcome"))]
    shown: dict[str, str] = {name: f"{name} {counts[name]:,}" for name in offered}
    name = state.pick("outcome", "Outcome", offered, "all", shown.__getitem__, below=_ANEW)
    return next(outcome for outcome in OUTCOMES if outcome == name)


def _beside(
    context: Context,
    scored: Mapping[str, Run],
    key: str,
    same: Sequence[str],
    names: Mapping[str, str],
    disagree: bool,
) -> Run | None:
    """The run whose answers stand beside; to disagree with, the newest comparable one is the usual."""
    fitting = (k for k in same if refusal(scored[key].measured, scored[k].measured) is None)
    usual = next(fitting, same[0]) if disagree else ""
    chosen = state.choose(
        "other",
        "Beside",
        [*([] if disagree else [""]), *same],
        usual,
        lambda k: names.get(k, _NONE),
        lambda k: f"Nothing to set beside: {context.why_not(k) if k not in scored else _other_target(k)}",
        below=_ANEW if disagree else (),
        width=260,
    )
    return scored[chosen] if chosen else None


def _tags(table: Table, quick: DeltaGenerator, line: DeltaGenerator) -> dict[str, str]:
    """Wanted values by tag: buttons for the first tags of few values, select boxes for the others."""
    found: dict[str, str] = {}
    tags = list(table.tags.items())[:_TAGS]
    few = [tag for tag, values in tags if len(values) <= _FEW][:_BUTTONS]
    rest = line.popover("Tags", icon=":material/sell:") if len(tags) > len(few) else line
    for tag, values in tags:
        name, label, choices = f"tag.{tag}", f"Tag {_plain_label(tag)}", ["", *values]
        with quick if tag in few else rest:
            if tag in few:
                found[tag] = state.pick(name, label, choices, "", _any, below=_ANEW)
            else:
                found[tag] = state.choose(name, label, choices, "", _any, below=_ANEW)
    return {tag: value for tag, value in found.items() if value}


def _other_target(key: str) -> str:
    return f"run {key} is this run, or one of another task or split"


def _any(value: str) -> str:
    return one_line(value, 100) or "any"


def _plain_label(text: str) -> str:
    """A label is Markdown to Streamlit: keep what means nothing in it."""
    return "".join(character if character.isalnum() or character in " -." else "-" for character in text)[:60]


def usual_score(run: Run, scores: Sequence[str]) -> str:
    """The score of the task's headline, else its first."""
    if not scores:
        return _NONE
    try:
        task = registry.task(run.task, run.protocol)
        metrics = {metric.name: metric for metric in task.metrics()}
        wanted = [task.headline, *metrics]
        names = [str(getattr(metrics[n], "score", n)) for n in wanted if n in metrics]
    except EvalkitError:
        names = list(run.metrics)
    return next((name for name in names if name in scores), scores[0])


def _browse(run: Run, wanted: Filter, other: Run | None) -> None:
    table = records.table(run.folder)
    rows = table.fitting(wanted)
    if not len(rows):
        components.box("No sample fits these filters.")
        return
    place = _place(table, rows)
    if place is None:
        return
    line = st.container(horizontal=True, vertical_alignment="center")
    with line:
        if st.button("Previous", key="previous", help="also the key ←", disabled=place == 0):
            _go(table, rows[place - 1])
        if st.button("Next", key="next", help="also the key →", disabled=place == len(rows) - 1):
            _go(table, rows[place + 1])
        st.text(f"sample {place + 1:,} of {len(rows):,}")
    keys.listen()
    found = table.sample(int(rows[place]))
    if "sample" not in st.query_params:
        st.query_params["sample"] = found.record.id
    image, words = st.columns([3, 2], gap="medium")
    with image:
        _images(run, found, line)
    with words:
        _texts(found, other)
        _details(found)
    _list(run, table, wanted, rows, place)


def _place(table: Table, rows: Rows) -> int | None:
    """Position among the rows of the sample in the address; None where it is not there, which is said."""
    identifier = st.query_params.get("sample")
    if identifier is None:
        return 0
    row = table.row_of(identifier)
    if row is None:
        components.box(f"Sample {identifier} is not in this run.", warn=True)
    else:
        place = int(np.searchsorted(rows, row))
        if place < len(rows) and rows[place] == row:
            return place
        components.box(f"Sample {identifier} does not fit these filters.", warn=True)
    if st.button(f"Show the first of the {len(rows):,} samples that fit"):
        _go(table, rows[0])
    return None


def _go(table: Table, row: int | np.int64) -> None:
    st.query_params["sample"] = table.sample(int(row)).record.id
    st.rerun()


def _images(run: Run, found: Sample, line: DeltaGenerator) -> None:
    """The images; how large is chosen in the line above them."""
    regions = regions_of(run, found)
    sheet, address = _sheet(found.images, tuple(regions))
    if sheet.image is not None:
        with line:
            zoom = state.pick("zoom", "Zoom", _ZOOMS, "fit", label_visibility="collapsed")
        fit = "width:100%;max-height:64vh;object-fit:contain"
        size = fit if zoom == "fit" else f"width:{sheet.image.width * int(zoom[:-1]) // 100}px"
        name = escape(found.record.id, 80)
        st.html(
            f'<div class="ek-image" tabindex="0"><img alt="images of sample {name}" '
            f'style="{size}" src="{address}"></div>'
        )
        _legend(regions, sheet.sizes)
    elif not found.images:
        components.note("This sample has no image.")
    if sheet.problems:
        more = f" ({len(sheet.problems) - 1} more are like this)" if len(sheet.problems) > 1 else ""
        components.box(f"{sheet.problems[0]}{more}", warn=True)


@st.cache_resource(show_spinner=False, max_entries=16)
def _sheet(images: tuple[str, ...], regions: tuple[Region, ...]) -> tuple[overlays.Sheet, str]:
    """The images as one, and that one as an address."""
    sheet = overlays.sheet(images, regions)
    return sheet, overlays.data_address(sheet.image) if sheet.image is not None else ""


def regions_of(run: Run, found: Sample) -> list[Region]:
    """What the task draws; a record that is not in its form has nothing to draw."""
    task = _task(run.task, run.protocol)
    if task is None or task.overlay is None or found.record.failed:
        return []
    try:
        return list(task.overlay.regions(found.record))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return []


@st.cache_resource(show_spinner=False, max_entries=64)
def _task(name: str, protocol: str) -> Task | None:
    try:
        return registry.task(name, protocol)
    except EvalkitError:
        return None


def _legend(regions: Sequence[Region], sizes: Sequence[tuple[int, int]]) -> None:
    counts = Counter(sizes)
    words = " · ".join(
        f"{f'{count} images of ' if len(sizes) > 1 else ''}{width} × {height} pixels"
        for (width, height), count in counts.items()
    )
    roles = {region.role for region in regions}
    for role, colour, kind, style in (
        ("target", theme.TARGET_COLOUR, "", "green, solid"),
        ("prediction", theme.PREDICTION_COLOUR, " ek-dashed", "yellow, dashed or crossed"),
    ):
        if role in roles:
            words += f'<span class="ek-line{kind}" style="border-color:{colour}"></span>{role}: {style}'
    st.html(f'<div class="ek-note">{words}</div>')


def _texts(found: Sample, other: Run | None) -> None:
    """Question, answer and target, and what another run answered."""
    record, lengths = found.record, found.lengths
    items = [Quote("Question", found.question, lengths["question"])]
    if record.error is None:
        items.append(Quote("Answer", record.text, lengths["text"]))
    items.append(Quote("Target", _json(record.target)))
    if record.prediction is not None and record.prediction != record.text:
        items.append(Quote("Read as", _json(record.prediction)))
    facts: dict[str, object] = {}
    if other is not None:
        table = records.table(other.folder)
        row = table.row_of(record.id)
        if row is not None:
            theirs = table.sample(row)
            items.append(Quote(f"Answer of {other.model}", theirs.record.text, theirs.lengths["text"]))
            facts = {f"{name} of {other.model}": f"{value:g}" for name, value in theirs.record.scores.items()}
        else:
            components.note(f"{other.model} has no such sample.")
    if record.error is not None:
        components.box(f"No answer: {record.error.kind}: {record.error.message}", warn=True)
    components.quotes(*items)
    components.facts(facts)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _details(found: Sample) -> None:
    record = found.record
    prompt, visual, new = found.tokens
    facts: dict[str, object] = {"sample": record.id, "cluster": record.cluster}
    facts |= {f"score {name}": f"{value:g}" for name, value in record.scores.items()}
    facts |= {f"tag {name}": value for name, value in record.tags.items()}
    facts["flags"] = ", ".join(record.flags)
    if kind := record.data.get("near_miss"):
        facts["near miss"] = str(kind)
    if new or prompt or visual:
        facts["tokens"] = f"{prompt} text, {visual} visual, {new} generated ({found.finish or 'end unknown'})"
    if found.seconds:
        facts["model time"] = f"{found.seconds:.3g} s"
    components.facts(facts)
    with st.expander("Image files and stored data"):
        paths = "".join(f"<div>{html.escape(visible(path[:1000]))}</div>" for path in found.images[:40])
        st.html(f'<div class="ek-note">{paths or "no image"}</div>')
        components.quotes(Quote("Data", _json(record.data)))


def _list(run: Run, table: Table, wanted: Filter, rows: Rows, place: int) -> None:
    import pandas as pd

    start = place // _PAGE * _PAGE
    page = table.preview(rows[start : start + _PAGE].tolist(), wanted.score)
    frame = pd.DataFrame(page, columns=["row", "id", "score", "question", "target", "answer", "flags"])
    for name in ("id", "question", "target", "answer"):
        frame[name] = [one_line(text or "", 120) for text in frame[name]]
    components.note(f"samples {start + 1:,} to {start + len(page):,}; choose a row to open it")
    choice = st.dataframe(
        frame.drop(columns="row"),
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key=f"list-{run.path}-{start}-{place}-{hash(str(wanted))}",
        height=420,
        placeholder="",
        column_config={"score": st.column_config.NumberColumn(wanted.score, format="%.3g")},
    )
    selected = choice.selection.rows if hasattr(choice, "selection") else []
    if selected and selected[0] < len(page):
        _go(table, int(page[selected[0]]["row"]))
