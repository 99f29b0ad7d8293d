"""Compare: any number of runs or checkpoints against a base, over all tasks at once or on one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import streamlit as st

from evalkit.comparison import Key, MetricResult, Thresholds
from evalkit.comparison.best_of import BestOfComparison, compare_best_of
from evalkit.errors import UsageError
from evalkit.pipeline.comparison_options import as_level
from evalkit.reports import wording
from evalkit.reports.best_of import said_of_best
from evalkit.text import one_line
from evalkit_leaderboard import comparing, components, settings, state
from evalkit_leaderboard.comparing import (
    ALL,
    FATES,
    Fate,
    Outcome,
    Runs,
    Settings,
    Side,
    compare_over,
    fate,
    headline,
)
from evalkit_leaderboard.components import HtmlCell, escape
from evalkit_leaderboard.context import Context
from evalkit_leaderboard.naming import run_names
from evalkit_leaderboard.numbers import interval, signed
from evalkit_leaderboard.runs import Run, or_reason
from evalkit_leaderboard.views import compare_details
from evalkit_leaderboard.views.compare_details import Links

#: What is chosen anew with other sides.
_BELOW = ("detail", "task", "flips")
#: Sides among which the newest comparable pair is looked for.
_LOOKED_AT = 40
_ALLOWED = (
    "dtype",
    "evalkit",
    "prompt",
    "gen",
    "tiles",
    "request",
    "subset",
    "data",
    "n",
    "judge",
    "nonstandard",
)
_WORDS: Mapping[Fate, str] = {
    "forgotten": "forgotten (a drop is shown)",
    "gained": "gained",
    "kept": "kept (a larger drop than the margin is excluded, or all samples are the same)",
    "undecided": "undecided",
}


def render(context: Context) -> None:
    """The page."""
    st.title("Compare", anchor=False)
    by_target = _targets(context)
    if not by_target:
        components.box(
            "A comparison takes two scored runs of one task and split. Run a second model or checkpoint:",
            "evalkit run -m MODEL --checkpoint FOLDER -t TASK --split SPLIT",
        )
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        target = state.choose(
            "target",
            "Tasks",
            list(by_target),
            _usual_target(context, by_target),
            why=_no_pair,
            below=("base", "new", *_BELOW),
        )
        with st.popover("Level, margins and fields", icon=":material/tune:"):
            chosen = _settings()
    if chosen is None:
        return
    sides = by_target[target]
    base, news = _sides(context, target, sides)
    outcomes: dict[str, Outcome] = {}
    with st.spinner("Comparing sample by sample"):
        for key in news:
            outcome = _compared(sides[base], sides[key], chosen)
            if isinstance(outcome, str):
                components.box(outcome, warn=True)
                return
            outcomes[key] = outcome
    _summary(context, outcomes, sides, base)
    _all_tasks(context, outcomes, sides)
    if len(outcomes) > 1:
        _best_of(sides, base, list(outcomes), chosen)
    _details(context, outcomes, sides, base)


def _targets(context: Context) -> dict[str, dict[str, Side]]:
    """Sides by address, newest first: models over all tasks, then the runs of each task and split."""
    found: dict[str, dict[str, Side]] = {}
    models = {
        row.key: Side(row.label, runs)
        for row in context.matrix.rows
        if not row.published and (runs := {k: r for k, r in context.side(row).items() if r.scored})
    }
    ordered = sorted(models, key=lambda key: models[key].created, reverse=True)
    if len(models) > 1:
        found[ALL] = {key: models[key] for key in ordered}
    by_name: dict[str, dict[str, Run]] = {}
    for key, run in sorted(context.runs.items(), key=lambda item: item[1].created, reverse=True):
        if run.scored and run.metrics:
            by_name.setdefault(f"{run.task}@{run.split}", {})[key] = run
    for target, members in sorted(by_name.items()):
        if len(members) > 1:
            names = run_names(members)
            found[target] = {k: Side(names[k], {Key(r.task, r.split): r}) for k, r in members.items()}
    return found


def _usual_target(context: Context, by_target: Mapping[str, Mapping[str, Side]]) -> str:
    """Where the address names a run, that run's; else all tasks."""
    named = [run for name in ("base", "new") if (run := context.runs.get(state.given(name))) is not None]
    targets = [f"{run.task}@{run.split}" for run in named]
    return next((target for target in targets if target in by_target), next(iter(by_target)))


def _no_pair(target: str) -> str:
    return f"{target}: there are no two scored runs of that task and split to compare."


def _settings() -> Settings | None:
    """What the command line takes as flags; None where it cannot be, which is said."""
    level = state.search("alpha", "Level of the tests (--alpha)", placeholder="0.05")
    margin = state.search("margin", "Margins (--margin), in the metric's unit", placeholder="accuracy=1, ...")
    drop = state.search("maxdrop", "Largest drops (--max-drop)", placeholder="accuracy=0.5, ...")
    allow = state.choose_several(
        "allow", "Fields of the signature that may differ", _ALLOWED, placeholder="none; choose knowingly"
    )
    try:
        alpha = as_level(float(level)) if level else 0.05
        found = Settings(alpha, _items(margin), _items(drop), tuple(allow))
        found.options()
    except ValueError:
        components.box(f"--alpha {level}: write a level between 0 and 1, e.g. 0.05", warn=True)
        return None
    except UsageError as error:
        components.box(str(error), warn=True)
        return None
    return found


def _items(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _sides(context: Context, target: str, sides: Mapping[str, Side]) -> tuple[str, list[str]]:
    """The base and what is compared with it."""
    usual_base, usual_new = _usual_pair(context, sides)
    names = {key: side.name for key, side in sides.items()}
    left, right = st.columns(2)
    with left:
        base = state.choose(
            "base",
            "Base",
            list(sides),
            usual_base,
            names.__getitem__,
            partial(_why_not, context, target, ""),
            below=_BELOW,
        )
    others = [key for key in sides if key != base]
    with right:
        usual = usual_new if usual_new in others else others[0]
        news = state.choose_several(
            "new",
            "New",
            others,
            [usual],
            names.__getitem__,
            partial(_why_not, context, target, base),
            below=_BELOW,
        )
    return base, news


def _why_not(context: Context, target: str, base: str, key: str) -> str:
    if key == base:
        return f"Run {key} is the base itself."
    if target == ALL and key not in context.runs:
        return f"No model {key} is measured under {context.index.where}: it was moved or deleted."
    run = context.runs.get(key)
    if run is not None and run.scored and run.metrics:
        return f"Run {key} is of {run.task}@{run.split}, not of {target}."
    return context.why_not(key)


def _usual_pair(context: Context, sides: Mapping[str, Side]) -> tuple[str, str]:
    """Base and new: the newest that the baseline, or else an earlier one, may be compared with."""
    keys = list(sides)[:_LOOKED_AT]
    baseline = settings.baseline(context.index.roots)
    for place, new in enumerate(keys):
        earlier = [*([baseline] if baseline in sides else []), *keys[place + 1 :]]
        for base in earlier:
            if base != new and comparing.comparable(sides[base].runs, sides[new].runs):
                return base, new
    return keys[1], keys[0]


def _compared(base: Side, new: Side, chosen: Settings) -> Outcome | str:
    told = f"{comparing.stamps(base.runs)}\n{comparing.stamps(new.runs)}"
    return _cached(told, (base.name, new.name), chosen, base.runs, new.runs)


@st.cache_resource(show_spinner=False, max_entries=40)
def _cached(told: str, names: tuple[str, str], chosen: Settings, _base: Runs, _new: Runs) -> Outcome | str:
    """The comparison, or why there is none."""
    return or_reason(lambda: compare_over(_base, _new, names, chosen))


def _summary(context: Context, outcomes: Mapping[str, Outcome], sides: Mapping[str, Side], base: str) -> None:
    """A sentence for each side: how many metrics were gained, kept, forgotten."""
    for key, outcome in outcomes.items():
        if outcome.comparison is None:
            whys = dict.fromkeys(outcome.refused.values())
            reason = "; ".join(whys) or "they have no task in common, or are the same runs"
            components.box(f"Not comparable: {sides[key].name} with {sides[base].name}: {reason}", warn=True)
            continue
        heads = {
            t.key: headline(context.matrix.infos, outcome.comparison, t.key) for t in outcome.comparison.tasks
        }
        said = comparing.said(outcome.comparison, heads)
        text = f"{sides[key].name} against {sides[base].name}: {said}"
        components.box(text, warn=outcome.comparison.verdict == "regression")
        components.notes(f"{task}: not comparable: {why}" for task, why in outcome.refused.items())


def _all_tasks(context: Context, outcomes: Mapping[str, Outcome], sides: Mapping[str, Side]) -> None:
    """A row for each task by its headline, a column for each side; forgotten ones first."""
    compared = {key: outcome.comparison for key, outcome in outcomes.items() if outcome.comparison}
    if not compared:
        return
    st.header("Gained, kept, forgotten", anchor=False)
    header = [HtmlCell("Task", "ek-name"), *(HtmlCell(escape(sides[key].name, 60)) for key in compared)]
    rows: dict[Key, list[MetricResult | None]] = {}
    for place, comparison in enumerate(compared.values()):
        for task in comparison.tasks:
            rows.setdefault(task.key, [None] * len(compared))[place] = headline(
                context.matrix.infos, comparison, task.key
            )
    body = []
    for key, results in sorted(rows.items(), key=lambda item: _worst(item[1])):
        name = next((result.name for result in results if result is not None), "")
        words = f'{escape(key, 60)}<span class="ek-sub">{escape(name, 40)}</span>'
        cells = [HtmlCell(components.link("compare", words, target=str(key)), "ek-name", str(key))]
        cells += [_fate_cell(result) for result in results]
        body.append(("", cells))
    components.table(header, body, "gained, kept, forgotten")
    first = next(iter(compared.values()))
    legend = "; ".join(_WORDS.values())
    components.note(
        f"By each task's headline; {legend}. Level {first.alpha:g}, Holm over the metrics judged of all "
        "tasks. Without a margin nothing but equal samples shows that a value was kept."
    )


def _worst(results: Sequence[MetricResult | None]) -> int:
    return min((FATES.index(fate(result)) for result in results if result is not None), default=len(FATES))


def _fate_cell(result: MetricResult | None) -> HtmlCell:
    if result is None:
        return HtmlCell("–", title="not compared")
    found, unit = fate(result), result.difference.metric.unit
    kind = {"gained": "ek-good", "forgotten": "ek-bad"}.get(found, "")
    reach = result.difference.ci95 or (None, None)
    words = f'<span class="ek-value">{signed(result.difference.difference, unit)}</span>'
    words += f'<span class="ek-sub">{interval(reach[0], reach[1], unit)}</span>'
    words += f'<span class="ek-sub {kind}">{found}</span>'
    return HtmlCell(words, title=wording.verdict(result))


def _best_of(sides: Mapping[str, Side], base: str, news: Sequence[str], chosen: Settings) -> None:
    """Which is best, and is it better than luck would have it?"""
    st.header(f"The best of {len(news)}", anchor=False)
    told = "\n".join(comparing.stamps(sides[key].runs) for key in (base, *news))
    names = (sides[base].name, tuple(sides[key].name for key in news))
    with st.spinner("Choosing among them"):
        found = _cached_best(told, names, chosen, sides[base].runs, [sides[key].runs for key in news])
    if isinstance(found, str):
        components.box(found, warn=True)
        return
    titles = ("best", "change", "95% interval (max-T)", "p (max-T)", "verdict")
    header = [HtmlCell("Task", "ek-name"), *(HtmlCell(title) for title in titles)]
    body: list[tuple[str, Sequence[HtmlCell]]] = []
    notes: list[str] = []
    for task in found.tasks:
        name = f'{escape(task.key, 60)}<span class="ek-sub">{escape(task.found.metric.name, 40)}</span>'
        cells = [HtmlCell(name, "ek-name", str(task.key))]
        if task.found.best is None:
            cells.append(HtmlCell("none has a value"))
        else:
            best, unit = task.found.contenders[task.found.best], task.found.metric.unit
            reach = best.ci95 or (None, None)
            texts = [
                one_line(task.best or "", 60),
                signed(best.difference.difference, unit),
                interval(reach[0], reach[1], unit),
            ]
            texts += ["–" if best.p is None else f"{best.p:.2g}", task.verdict(best).replace("_", " ")]
            cells += [HtmlCell(escape(text)) for text in texts]
        body.append(("", cells))
        notes += [f"{task.key}: {line}" for line in said_of_best(task.found, len(task.names), task.best)]
    components.table(header, body, "the best of several")
    components.notes([*notes, *found.reasons])


@st.cache_resource(show_spinner=False, max_entries=12)
def _cached_best(
    told: str, names: tuple[str, tuple[str, ...]], chosen: Settings, _base: Runs, _news: Sequence[Runs]
) -> BestOfComparison | str:
    """What `evalkit compare --best-of` says of the tasks that may be compared, or why there is nothing."""
    keys = [key for key in _base if all(key in comparing.shared(_base, new) for new in _news)]
    keys = [
        key for key in keys if all(comparing.refused(_base[key], n[key], chosen.allow) is None for n in _news)
    ]
    options = chosen.options()
    return or_reason(
        lambda: compare_best_of(
            {key: _base[key].folder for key in keys},
            [{key: new[key].folder for key in keys} for new in _news],
            names=names,
            thresholds=Thresholds(options.largest_drops, options.margins),
            alpha=chosen.alpha,
            allow=chosen.allow,
        )
    )


def _details(context: Context, outcomes: Mapping[str, Outcome], sides: Mapping[str, Side], base: str) -> None:
    """Everything of one of the comparisons."""
    compared = {key: outcome.comparison for key, outcome in outcomes.items() if outcome.comparison}
    if not compared:
        return
    key = next(iter(compared))
    if len(compared) > 1:
        key = state.choose("detail", "In detail", list(compared), key, lambda k: sides[k].name)
    comparison = compared[key]
    heads = {task.key: headline(context.matrix.infos, comparison, task.key) for task in comparison.tasks}
    keys = {run.path: name for name, run in context.runs.items()}
    links = {k: Links(keys[sides[base].runs[k].path], keys[sides[key].runs[k].path]) for k in heads}
    compare_details.show(comparison, heads, links)
