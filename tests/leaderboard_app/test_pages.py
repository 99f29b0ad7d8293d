"""Every page's logic, run without a browser."""

from __future__ import annotations

import functools
import json
import math
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import streamlit
from html_tables import uneven
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest
from written_sweep import sweep_scores, write_sweep

from evalkit import compare
from evalkit.comparison import Key, MetricResult
from evalkit.errors import NotComparableError
from evalkit.metrics.base import Accuracy, Mean, RootMeanSquare
from evalkit.statistics import Difference
from evalkit_leaderboard import charts, context
from evalkit_leaderboard.index import Index
from evalkit_leaderboard.matrix import row_key
from evalkit_leaderboard.runs import Run
from evalkit_leaderboard.views import compare_details
from mini_internvl_train import sweep_table

#: AppTest of older releases cannot run a page with segmented controls a second time.
run_again = pytest.mark.skipif(
    tuple(map(int, streamlit.__version__.split(".")[:2])) < (1, 67),
    reason="AppTest of this Streamlit is too old",
)


@pytest.fixture(scope="module", autouse=True)
def components_of_others_are_sought_once() -> Iterator[None]:
    """Each page starts Streamlit anew, which reads the metadata of every package here for such components."""
    with pytest.MonkeyPatch.context() as patch:
        known = functools.cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", known)
        yield


def script(page: str, runs: str, training: str) -> None:
    """What AppTest runs in place of the app's navigation."""
    from importlib import import_module
    from pathlib import Path

    from evalkit_leaderboard.app import guarded

    guarded(import_module(f"evalkit_leaderboard.views.{page}").render, [Path(runs)], Path(training))


def page(name: str, runs: Path, **query: str | list[str]) -> AppTest:
    """The page after its first run with an address."""
    training = runs.parent / "checkpoints"
    app = AppTest.from_function(script, args=(name, str(runs), str(training)), default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    app.run()
    assert not uneven(html(app))
    return app


def html(app: AppTest) -> str:
    """All HTML of a page."""
    return "\n".join(str(element.proto.body) for element in app.get("html"))


def texts(app: AppTest) -> list[str]:
    """All foreign texts of a page."""
    quoted = re.findall(r"<pre>(.*?)</pre>", html(app), re.DOTALL)
    return [*(unescape(text) for text in quoted), *(str(element.value) for element in app.code)]


def rows_of(app: AppTest) -> list[str]:
    """Labels of the first table's rows, in order, without the line that sets published rows apart."""
    parts = html(app).split("<tbody>")[1].split("</tbody>")[0].split("<tr")[1:]
    return [part.split('title="')[1].split('"')[0] for part in parts if "ek-apart" not in part]


def key_of(root: Path, model: str, task: str) -> str:
    index = Index([root], root.parent / "cache")
    index.refresh(patience=0)
    return next(key for key, run in index.runs.items() if (run.model, run.task) == (model, task))


def given(app: AppTest, name: str) -> list[str]:
    """Values of a name in the address."""
    value: Any = app.query_params[name]
    return [value] if isinstance(value, str) else list(value)


def unfold(app: AppTest, *names: str, opened: bool = True) -> AppTest:
    """Open what is folded away; or fold it away again."""
    for name in names:
        app.session_state[f"open-{name}"] = opened
    return app.run()


def fold(app: AppTest, *names: str) -> AppTest:
    return unfold(app, *names, opened=False)


def failed(app: AppTest) -> bool:
    return bool(app.exception) or "cannot be shown" in html(app)


PAGES = ("overview", "task", "compare", "samples", "training", "runs")


@pytest.mark.parametrize("name", PAGES)
def test_pages_of_a_real_tree(real_tree: Path, name: str) -> None:
    app = page(name, real_tree)
    assert not failed(app)
    assert app.title


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("there", [True, False])
def test_empty_pages_say_what_to_type(tmp_path: Path, name: str, there: bool) -> None:
    folder = tmp_path / "runs"
    if there:
        folder.mkdir()
    app = page(name, folder)
    assert not failed(app)
    assert "<code>evalkit " in html(app)


def test_overview_marks_published_rows_and_ranks_ours(real_tree: Path) -> None:
    app = page("overview", real_tree, sort="rsvqa-lr@miniature:average", benchmarks="all")
    content = html(app)
    assert (
        'published<span class="ek-wide">, not measured here</span>' in content
        and "InternVL2-Llama3-76B" in content
    )
    assert rows_of(app)[:3] == ["good", "tuned@step-300", "worse"]
    assert "tuned@step-100" not in rows_of(app) and 'ek-mark">miniature, limited' in content
    cell = content.split("<tbody>")[1].split('title="rsvqa-lr@miniature:average; n = ')[1]
    assert "ek-best" in content and '<span class="ek-sub">[' in cell[:400]
    ours, line, theirs = content.partition("not measured here. Not comparable with the rows above (")
    assert (
        line and "drawn questions, none of the benchmark&#x27;s; it publishes 10,004" in theirs.split(")")[0]
    )
    assert "ek-published" not in ours.split("<tbody>")[1] and "ek-published" in theirs


@run_again
def test_overview_turns_its_pages(real_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evalkit_leaderboard.views import overview_table

    everything = rows_of(page("overview", real_tree))
    monkeypatch.setattr(overview_table, "_PAGE", 2)
    app = page("overview", real_tree)
    assert len(everything) == 4 and rows_of(app) == everything[:2] and "rows 1 to 2 of 4" in html(app)

    def press(label: str) -> None:
        (button,) = (button for button in app.button if button.label == label)
        button.click().run()

    press("Next rows")
    assert rows_of(app) == everything[2:] and "rows 3 to 4 of 4" in html(app) and given(app, "page") == ["2"]
    assert [button.disabled for button in app.button if button.label == "Next rows"] == [True]
    press("Previous rows")
    assert rows_of(app) == everything[:2] and "page" not in app.query_params


@run_again
def test_overview_filters_sorts_and_keeps_its_address(real_tree: Path) -> None:
    app = page("overview", real_tree)
    app.text_input(key="q-search").set_value("tuned").run()
    assert rows_of(app) == ["tuned@step-300"] and given(app, "search") == ["tuned"]
    assert "q-sort" not in (box.key for box in app.selectbox), (
        "what is folded away is drawn when it is opened"
    )
    unfold(app, "Rows", "Order").toggle(key="q-checkpoints").set_value(True).run()
    assert len(rows_of(app)) == 3 and given(app, "checkpoints") == ["1"]
    app.selectbox(key="q-sort").set_value("name").run()
    assert rows_of(app) == ["tuned@step-100", "tuned@step-200", "tuned@step-300"]
    app.toggle(key="q-reverse").set_value(True).run()
    fold(app, "Rows", "Order")
    assert rows_of(app)[0] == "tuned@step-300" and given(app, "reverse") == ["1"]
    shared = {name: given(app, name)[0] for name in app.query_params}
    again = page("overview", real_tree, **shared)
    assert rows_of(again) == rows_of(app)
    unfold(app, "Order").toggle(key="q-reverse").set_value(False).run()
    assert "reverse" not in app.query_params


def small_tree(real_tree: Path, folder: Path, *models: str) -> Path:
    """The runs of some models on one task."""
    for name in models:
        place = f"{name}/rsvqa-lr@miniature"
        shutil.copytree(real_tree / place, folder / "runs" / place)
    return folder / "runs"


def test_overview_shows_the_comparisons_verdicts_against_a_baseline(real_tree: Path, tmp_path: Path) -> None:
    """The choice stands in the address and in the settings file; a baseline that is gone is named."""
    worse = row_key("worse", "worse")
    tree = small_tree(real_tree, tmp_path, "good", "worse")
    context._verdicts().settle()
    app = page("overview", tree, baseline=worse)
    context._verdicts().settle()
    app.run()
    (row,) = (part for part in html(app).split("<tr") if 'title="good"' in part)
    base, new = (next(tree.glob(f"{name}/rsvqa-lr@miniature/2*")) for name in ("worse", "good"))
    (average,) = (result for result in compare(base, new).metrics if result.name == "average")
    assert average.verdict == "improved" and average.difference.difference is not None
    assert f"+{average.difference.difference:.2f} improved" in row
    again = page("overview", tree)
    assert worse in again.query_params["baseline"] and "improved" in html(again)
    gone = page("overview", tree, baseline="0123456789")
    assert "No model 0123456789 is measured" in html(gone) and "improved" not in html(gone)
    unfold(page("overview", tree, baseline=""), "Baseline").selectbox(key="q-baseline").set_value("").run()
    assert "baseline" not in page("overview", tree).query_params


def test_overview_chooses_columns_and_splits(real_tree: Path) -> None:
    app = page("overview", real_tree, columns="dior-rsvg@miniature:mean_iou")
    head = html(app).split("</thead>")[0]
    assert "mean_iou" in head and "rsvqa" not in head
    app = page("overview", real_tree, splits="Published")
    assert "miniature" not in html(app).split("</thead>")[0]


def test_overview_limits_parameters_and_kinds(real_tree: Path) -> None:
    assert "InternVL2-Llama3-76B" not in rows_of(page("overview", real_tree, size="≤ 2B"))
    assert all("Intern" not in label for label in rows_of(page("overview", real_tree, rows="Measured")))
    limited = rows_of(page("overview", real_tree, rows="Measured", rankedonly="1"))
    assert "part" not in limited and "good" in limited


def test_overview_has_the_papers_tables_whole(real_tree: Path) -> None:
    app = page("overview", real_tree, printed="Table 13: cost of the ways to adapt")
    table = html(app).split('aria-label="Table 13: cost of the ways to adapt"')[1]
    assert "Freezing-ViT" in table and ">260.76<" in table and "ek-published" in table
    assert "Table 12" not in html(app).split("</thead>")[0]
    app = page("overview", real_tree, benchmarks="Table 2: general multimodal benchmarks")
    head = html(app).split("</thead>")[0]
    assert "OCRBench" in head and "DriveLM" not in head and "RSVQA" not in head
    assert '72.8</span><span class="ek-sub">89.4%' in html(app)


@pytest.mark.parametrize(
    ("name", "query", "said"),
    [
        ("overview", {"sort": "../../etc"}, "Sort by: ../../etc is not offered here"),
        ("overview", {"size": "<b>"}, "Parameters: &lt;b&gt; is not offered"),
        ("overview", {"columns": ["x", "dior-rsvg@miniature:mean_iou"]}, "Columns: x is not offered"),
        ("overview", {"splits": "x"}, "Splits: x is not offered"),
        ("overview", {"rankall": "perhaps"}, "rankall=perhaps in the address is neither 1 nor 0"),
        ("task", {"task": "rsvqa-lr", "metric": "x"}, "Metric: x is not offered"),
        ("training", {"metric": "x"}, "Metric: x is not offered"),
        ("samples", {"outcome": "wrnog"}, "Outcome: wrnog is not offered"),
        ("samples", {"score": "x"}, "Score: x is not offered"),
        ("runs", {"status": "x"}, "Status: x is not offered"),
    ],
)
def test_what_an_address_names_and_is_not_offered_is_said_and_not_replaced(
    real_tree: Path, name: str, query: dict[str, str | list[str]], said: str
) -> None:
    app = page(name, real_tree, **query)
    assert not failed(app) and said in html(app)
    unshown = {
        "overview": "models by tasks",
        "task": "vegaLite",
        "training": "Bands are 95% intervals",
        "samples": "ek-quotes",
    }
    assert unshown.get(name, "Where the values come from") not in html(app)
    for key, value in query.items():
        assert value in (given(app, key), given(app, key)[0]), "what was named stands in the address"


@run_again
def test_another_task_takes_the_choices_below_it_along(real_tree: Path) -> None:
    app = page("task", real_tree, task="dior-rsvg", metric="mean_iou")
    app.selectbox(key="q-task").set_value("rsvqa-lr").run()
    assert not failed(app) and "is not offered" not in html(app) and "metric" not in app.query_params


def test_task_page_has_the_papers_table_groups_and_protocol(real_tree: Path) -> None:
    app = page("task", real_tree, task="rsvqa-lr")
    content = html(app)
    headings = [element.value for element in app.header]
    assert "Table 11: remote sensing" in headings and "Values and their 95% intervals" in headings
    assert "SkyEyeGPT" in content and ">good" in content and "limited" in content
    assert "rsvqa-lr|v1|miniature" in content
    table = content.split('aria-label="Table 11: remote sensing"')[1]
    ours, theirs = (
        next(row for row in table.split("<tr") if label in row) for label in (">good", "SkyEyeGPT")
    )
    assert 'ek-mark">miniature</span>' in ours and "ek-unranked" in ours
    assert ">miniature</span>" not in theirs and "ek-unranked" not in theirs
    assert "Answer the question using a single word or phrase." in content


def test_the_papers_table_takes_the_chosen_split_and_marks_of_its_own_runs(tree: Path) -> None:
    for folder in tree.glob("good/rsvqa-lr@miniature/2*"):
        other = Path(shutil.copytree(folder, tree / "good" / "rsvqa-lr@test" / folder.name))
        summary = json.loads((other / "summary.json").read_text())
        summary |= {"split": "test", "nonstandard": {"max_tiles": 2}}
        (other / "summary.json").write_text(json.dumps(summary))

    def row(split: str) -> tuple[str, str]:
        """The row of `good` and what stands before it."""
        content = html(page("task", tree, task="rsvqa-lr", split=split))
        tables = content.split('aria-label="Table 11: remote sensing"')[1]
        before, _, after = tables.partition("Not comparable with the published rows above")
        assert ">good" not in before and "SkyEyeGPT" in before
        return next(part for part in after.split("<tr") if ">good" in part), after

    drawn, words = row("miniature")
    assert 'ek-mark">miniature</span>' in drawn and "non-standard" not in drawn
    whole, words = row("test")
    assert 'ek-mark">non-standard' in whole and "miniature" not in whole
    assert "non-standard: max_tiles=2 in place" in words and ">worse" not in words.split("aria-label")[1]


def test_a_mark_stands_at_the_value_that_it_explains_and_not_at_the_model(tree: Path) -> None:
    """One model, three tasks; one of its runs is limited."""
    (summary,) = tree.glob("good/dior-rsvg@miniature/2*/summary.json")
    content = json.loads(summary.read_text())
    summary.write_text(json.dumps({**content, "limited": True, "status": "partial"}))
    table = html(page("overview", tree, rows="Measured", splits="Miniature")).split("models by tasks")[1]
    (row,) = (part for part in table.split("<tr")[1:] if 'title="good"' in part)
    name, *cells = row.split("<td")
    assert "limited" not in name and ["limited" in cell for cell in cells].count(True) == 1


def test_the_task_page_takes_the_comparisons_own_answer(tree: Path) -> None:
    for name in ("manifest.json", "summary.json"):
        (path,) = tree.glob(f"worse/rsvqa-lr@miniature/2*/{name}")
        path.write_text(path.read_text().replace("dtype:fp32", "dtype:bf16"))
    assert "dtype:bf16" in path.read_text()
    app = html(page("task", tree, task="rsvqa-lr", split="miniature"))
    (row,) = (
        part for part in app.split('aria-label="signatures"')[1].split("<tr") if 'title="worse"' in part
    )
    base, new = (next(tree.glob(f"{name}/rsvqa-lr@miniature/2*")) for name in ("good", "worse"))
    with pytest.raises(NotComparableError) as refused:
        compare(base, new)
    said = str(refused.value).partition(": ")[2]
    assert "dtype (fp32 | bf16) differs" in said and f"no: {said}" in unescape(row)


def test_task_page_checks_its_intervals_when_asked(real_tree: Path) -> None:
    plain = page("task", real_tree, task="rsvqa-lr", metric="average")
    assert "Reliability of the intervals" not in [element.value for element in plain.header]
    app = page("task", real_tree, task="rsvqa-lr", metric="average", trust="1")
    table = html(app).split('aria-label="reliability of the intervals of average"')[1].split("</table>")[0]
    assert not failed(app) and 'title="good"' in table and ">400<" in table and "%" in table


def test_task_page_splits_figures_by_tag(real_tree: Path) -> None:
    app = page("task", real_tree, task="drivelm", tag="question_type", tagmetric="accuracy")
    assert not failed(app) and "By tag" in [element.value for element in app.header]
    assert 'aria-label="accuracy by question_type"' in html(app) and ">perception" in html(app)


def test_compare_finds_the_planted_difference(real_tree: Path) -> None:
    keys = {name: key_of(real_tree, name, "rsvqa-lr") for name in ("good", "worse")}
    app = page("compare", real_tree, target="rsvqa-lr@miniature", base=keys["good"], new=keys["worse"])
    assert not failed(app)
    content = html(app)
    assert (
        "Forgotten: " in content
        and "average" in content
        and "right to wrong" in str(app.get("button_group")[0].proto)
    )
    assert "nonsense" in texts(app)
    address = re.search(r'href="samples\?(run=[^"]*)"', content)
    assert address is not None and f"run={keys['worse']}" in address[1] and "sample=" in address[1]


def test_the_forest_plot_has_an_axis_for_each_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no upper end would flatten the rest; fractions are points of 100."""
    drawn: dict[str, list[tuple[str, float]]] = {}

    def draw(rows: list[dict[str, Any]], unit: str) -> object:
        drawn[unit] = [(row["label"], row["value"]) for row in rows]
        return forest(rows, unit)

    forest, specs = charts.forest, list[str]()
    monkeypatch.setattr(charts, "forest", draw)
    monkeypatch.setattr(streamlit, "altair_chart", lambda chart, **_: specs.append(str(chart.to_dict())))
    metrics = [
        Accuracy("accuracy"),
        Mean("iou", unit="fraction", scale=1.0),
        Mean("cider", bounds=(0.0, math.inf)),
        RootMeanSquare("speed", "speed", unit="m/s"),
    ]
    results = [
        MetricResult(Key("t", "s"), Difference(metric, 0.5, 0.75, 50, 50, (0.125, 0.375), p=0.01, se=0.1))
        for metric in metrics
    ]
    compare_details._forest(results, False)
    assert drawn == {
        "points of 100": [("accuracy", 0.25), ("iou", 25.0)],
        "percent, without an upper end": [("cider", 0.25)],
        "m/s": [("speed (lower is better)", 0.25)],
    }
    assert len(specs) == 3
    assert all(f"new − base, {unit}" in spec for unit, spec in zip(drawn, specs, strict=True))


def test_overview_says_what_is_new_better_and_worse_since_last_week(real_tree: Path, tmp_path: Path) -> None:
    tree = small_tree(real_tree, tmp_path, "good", "worse")
    for name, answers in {"good": "worse", "worse": "good"}.items():  # each had the other's answers before
        (path,) = (real_tree / answers / "rsvqa-lr@miniature").glob("2*")
        old = Path(shutil.copytree(path, tree / name / "rsvqa-lr@miniature" / "20200101-000000-aaaaaa"))
        for file in ("manifest.json", "summary.json"):
            content = json.loads((old / file).read_text().replace(f'"{answers}"', f'"{name}"'))
            (old / file).write_text(json.dumps({**content, "created": "2020-01-01T00:00:00+00:00"}))
    page("overview", tree)
    context._verdicts().settle()
    (line,) = (part for part in html(page("overview", tree)).split("<div") if "Since last week" in part)
    assert "2 new runs of 2 models" in line
    gain = re.search(
        r"better: good on rsvqa-lr@miniature \(\+(\d+\.\d+)\); worse: worse on [^ ]+ \(−(.*?)\)", line
    )
    assert gain is not None and gain[1] == gain[2]


def test_compare_sets_beside_what_is_comparable(real_tree: Path) -> None:
    app = page("compare", real_tree, target="rsvqa-lr@miniature")
    keys = {name: key_of(real_tree, name, "rsvqa-lr") for name in ("tuned@step-200", "tuned@step-300")}
    assert app.multiselect(key="q-new").value == [keys["tuned@step-300"]]
    assert app.selectbox(key="q-base").value == keys["tuned@step-200"]


def test_compare_over_everything_opens_on_the_newest_comparable_pair(real_tree: Path, tmp_path: Path) -> None:
    tree = small_tree(real_tree, tmp_path, "good", "worse", "part")
    app = page("compare", tree)
    assert not failed(app) and given(app, "target") == ["all tasks"]
    assert given(app, "base") == [row_key("good", "good")], "the newest run, a limited one, has no match"
    assert given(app, "new") == [row_key("worse", "worse")] and "Forgotten: " in html(app)


def test_compare_takes_several_with_margins_and_says_which_is_best(real_tree: Path) -> None:
    keys = {name: key_of(real_tree, name, "rsvqa-lr") for name in ("good", "worse", "tuned@step-300")}
    new = [keys["worse"], keys["tuned@step-300"]]
    app = page(
        "compare", real_tree, target="rsvqa-lr@miniature", base=keys["good"], new=new, margin="average=5"
    )
    assert not failed(app)
    content = html(app)
    table = content.split('aria-label="gained, kept, forgotten"')[1].split("</table>")[0]
    assert table.count("<td") == 2 and ">forgotten<" in table and ">kept<" in table
    assert "a drop larger than 5 is shown" in unescape(content)
    assert "presence (not judged)" in content, "a drop that no threshold names is named all the same"
    best = content.split('aria-label="the best of several"')[1].split("</table>")[0]
    assert "tuned@step-300" in best and "by luck alone" in content
    wrong = page("compare", real_tree, target="rsvqa-lr@miniature", margin="nothing=5")
    assert "--margin nothing: no such metric here" in html(wrong)
    assert "--alpha 2" in html(page("compare", real_tree, target="rsvqa-lr@miniature", alpha="2"))


def test_compare_refuses_what_is_not_comparable(real_tree: Path) -> None:
    keys = {name: key_of(real_tree, name, "rsvqa-lr") for name in ("good", "part")}
    app = page("compare", real_tree, target="rsvqa-lr@miniature", base=keys["good"], new=keys["part"])
    assert "Not comparable" in html(app) and "subset" in html(app)
    app.multiselect(key="q-allow").set_value(["n", "subset", "data"]).run()
    assert not failed(app) and "Not comparable" not in html(app)


def test_samples_show_images_boxes_and_texts(real_tree: Path) -> None:
    app = page("samples", real_tree, run=key_of(real_tree, "worse", "dior-rsvg"), outcome="wrong")
    assert not failed(app)
    content = html(app)
    assert "data:image/jpeg;base64," in content and "prediction: yellow" in content
    assert any(text.startswith("<ref>") for text in texts(app))
    assert "acc_0.5" in content


@run_again
def test_samples_move_and_are_shared_by_id(real_tree: Path) -> None:
    key = key_of(real_tree, "good", "rsvqa-lr")
    app = page("samples", real_tree, run=key)
    first = html(app)
    next(button for button in app.button if button.label == "Next").click().run()
    assert given(app, "sample") == ["1"] and html(app) != first
    next(button for button in app.button if button.label == "Previous").click().run()
    assert html(app) == first
    shared = page("samples", real_tree, run=key, sample="5")
    assert "<dt>sample</dt><dd>5</dd>" in html(shared)


def test_an_address_of_what_is_not_here_shows_nothing_else(real_tree: Path) -> None:
    for name in ("samples", "runs"):
        app = page(name, real_tree, run="doesnotexist")
        assert "Run doesnotexist is not under" in html(app) and given(app, "run") == ["doesnotexist"]
        assert "data:image" not in html(app) and not app.code and "ek-quotes" not in html(app)
    key = key_of(real_tree, "good", "rsvqa-lr")
    app = page("samples", real_tree, run=key, sample="nobody")
    assert "Sample nobody is not in this run" in html(app) and "ek-quotes" not in html(app)
    app = page("samples", real_tree, run=key, sample="5", outcome="wrong")
    assert "Sample 5 does not fit" in html(app) and "ek-quotes" not in html(app)
    app = page("samples", real_tree, run=key, other="doesnotexist")
    assert "Nothing to set beside: Run doesnotexist" in html(app) and "ek-quotes" not in html(app)
    app = page("compare", real_tree, base=key, new="doesnotexist")
    assert "Run doesnotexist is not under" in html(app) and "verdicts" not in html(app)
    app = page("compare", real_tree, target="rsvqa-lr@miniature", base=key_of(real_tree, "good", "drivelm"))
    assert "is of drivelm@miniature, not of rsvqa-lr@miniature" in html(app) and "verdicts" not in html(app)
    assert "No task nothing" in html(page("task", real_tree, task="nothing"))
    app = page("task", real_tree, task="rsvqa-lr", split="test")
    assert "No run of rsvqa-lr has values on split test" in html(app) and "ek-scroll" not in html(app)


@run_again
def test_a_run_that_goes_while_its_page_is_open_is_not_replaced(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_FRESH", -1.0)  # every run of a page looks at the disk
    keys = {name: key_of(tree, name, "rsvqa-lr") for name in ("good", "worse")}
    compared = page("compare", tree, base=keys["good"], new=keys["worse"])
    opened = page("samples", tree, run=keys["worse"])
    assert "Forgotten: " in html(compared) and "ek-quotes" in html(opened)
    (folder,) = (tree / "worse" / "rsvqa-lr@miniature").glob("2*")
    folder.rename(tree.parent / "elsewhere")
    for app in (compared.run(), opened.run()):
        assert f"Run {keys['worse']} is not under" in html(app)
        assert "verdicts" not in html(app) and "ek-quotes" not in html(app)
    (tree.parent / "elsewhere").rename(folder)
    assert "Forgotten: " in html(compared.run())


def test_samples_where_models_disagree(real_tree: Path) -> None:
    keys = {name: key_of(real_tree, name, "rsvqa-lr") for name in ("good", "worse")}
    app = page("samples", real_tree, run=keys["good"], other=keys["worse"], disagree="1")
    assert not failed(app) and "Answer of worse" in html(app) and "accuracy of worse" in html(app)


def test_samples_from_a_comparison_have_both_answers_whether_they_agree_or_not(real_tree: Path) -> None:
    keys = {name: key_of(real_tree, name, "rsvqa-lr") for name in ("good", "worse")}
    app = page("samples", real_tree, run=keys["good"], other=keys["worse"], sample="0")
    assert not failed(app) and "Answer of worse" in html(app) and given(app, "sample") == ["0"]


@run_again
def test_samples_have_buttons_for_outcomes_disagreement_and_tags(real_tree: Path) -> None:
    keys = {name: key_of(real_tree, name, "rsvqa-lr") for name in ("good", "worse")}
    app = page("samples", real_tree, run=keys["worse"])

    def found(**query: str) -> int:
        shown = page("samples", real_tree, run=keys["worse"], **query)
        (words,) = (str(text.value) for text in shown.text if "sample 1 of" in str(text.value))
        return int(words.rsplit(" ", 1)[1])

    buttons = next(group for group in app.button_group if group.label == "Outcome")
    counts = dict(option.replace("\\", "").rsplit(" ", 1) for option in buttons.options)
    assert int(counts["wrong"]) == found(outcome="wrong") > 0 and "near miss" not in counts
    assert int(counts["wrong"]) + int(counts["right"]) == int(counts["all"]) == found()
    assert {"presence", "count"} <= set(next(g for g in app.button_group if g.label == "Tag type").options)
    assert found(**{"tag.type": "count", "outcome": "wrong"}) < int(counts["wrong"])
    differ = page("samples", real_tree, run=keys["worse"], disagree="1")
    assert "Answer of " in html(differ) and given(differ, "other")[0], "the newest comparable run is beside"


def test_samples_without_fitting_say_so(real_tree: Path) -> None:
    app = page("samples", real_tree, run=key_of(real_tree, "good", "rsvqa-lr"), text="no such words")
    assert "No sample fits" in html(app)


def test_samples_of_a_missing_picture_and_a_failed_answer(tree: Path) -> None:
    app = page("samples", tree, run=_rewritten(tree))
    assert not failed(app)
    assert (
        "no such" in html(app)
        and "put it back" in html(app)
        and "No answer: image: gone &lt;b&gt;" in html(app)
    )


def _rewritten(tree: Path) -> str:
    """A run of one failed sample whose image is gone; returns its key."""
    from evalkit.contracts import Failure, Record, Response
    from evalkit.store import Scored, write_records

    (folder,) = (tree / "good" / "rsvqa-lr@miniature").glob("2*")
    record = Record("s", "c", "", None, None, flags=("error",), error=Failure("image", "gone <b>"))
    write_records(folder, [Scored(record, Response(), "k", "?", ("/nowhere/at/all.png",))])
    return key_of(tree, "good", "rsvqa-lr")


def test_training_shows_checkpoints_changes_and_losses(real_tree: Path) -> None:
    app = page("training", real_tree, target="rsvqa-lr@miniature", changes="1")
    assert not failed(app)
    content = html(app)
    assert "step-100" in content and "significant" in content and "trend:" in content
    assert "299 lines, step 299" in content
    assert app.selectbox(key="q-value").value == "loss"


def test_training_takes_the_base_as_step_0_and_shows_the_validation_loss(
    real_tree: Path, tmp_path: Path
) -> None:
    tree = small_tree(real_tree, tmp_path, "worse", "tuned@step-100", "tuned@step-200")
    log = tmp_path / "checkpoints" / "tuned" / "log.jsonl"
    log.parent.mkdir(parents=True)
    lines = [{"step": step, "loss": 3 / step} for step in range(1, 9)]
    lines += [{"step": 4, "validation_loss": 0.875}]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    app = page("training", tree, base=row_key("worse", "worse"), changes="1")
    assert not failed(app)
    scores, losses = (part.split("</table>")[0] for part in html(app).split('by training step"')[1:])
    assert scores.split("<td>")[1].startswith("0</td>"), "the base stands first"
    assert "validation" in losses and "0.875" in losses
    assert "tuned@step-200" in html(app).split('aria-label="history of')[1] and "worse, step 0" in str(
        app.toggle
    )


def test_training_draws_a_sweep_and_says_what_the_sweep_prints(tmp_path: Path) -> None:
    path = write_sweep(tmp_path / "checkpoints" / "ratio")
    app = page("training", tmp_path / "runs")
    assert not failed(app)
    for place, scores in enumerate(sweep_scores()):
        printed = [
            row.split(" | ")[2:] for row in sweep_table._scores(sweep_scores()) if f"| {scores.key} " in row
        ]
        name = f"{scores.key}: {scores.metric}"
        app = page("training", tmp_path / "runs", scores=name) if place else app
        table = html(app).split('aria-label="sweep over data.share"')[1].split("</table>")[0]
        heading, *rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr")[1:]]
        assert heading == ["point", "value, 95% interval", "against share=0.1", "p (Holm)", "verdict"]
        assert [[unescape(cell) for cell in row] for row in rows] == [
            [cell.removesuffix(" |").strip() for cell in row] for row in printed
        ]
        (chart,) = app.get("vega_lite_chart")
        spec = json.loads(chart.proto.spec)
        assert '"field": "x", ' in json.dumps(spec) and '"title": "data.share"' in json.dumps(spec)
    assert "another seed may differ" in html(app)
    for content in ("{", '{"varied": {}}', path.read_text().replace("0.312", '"x"')):
        path.write_text(content)
        assert f"{path}: " in html(page("training", tmp_path / "runs"))
    gone = page("training", tmp_path / "runs", sweep="gone")
    assert "No sweep gone is here" in html(gone) and "No training log" in html(gone)


def test_training_shows_a_models_scores_over_dates(real_tree: Path) -> None:
    app = page("training", real_tree, target="rsvqa-lr@miniature", dates="1")
    (folder,) = real_tree.glob("tuned@step-200/rsvqa-lr@miniature/2*")
    created = json.loads((folder / "manifest.json").read_text())["created"]
    table = html(app).split('by date"')[1].split("</table>")[0]
    assert not failed(app) and table.count("<tr") == 4 and created[:16].replace("T", " ") in table


def test_training_shows_the_first_metric_that_all_runs_have(real_tree: Path) -> None:
    app = page("training", real_tree, target="drivelm@miniature")
    assert not failed(app)
    assert app.selectbox(key="q-metric").value == "accuracy"
    assert "accuracy stands in for final_score" in html(app)


def test_runs_list_progress_and_provenance(tree: Path) -> None:
    (folder,) = (tree / "good" / "rsvqa-lr@miniature").glob("2*")
    (folder / "summary.json").unlink()
    from filelock import FileLock

    with FileLock(folder / ".lock"):
        app = page("runs", tree)
    assert not failed(app)
    assert "responses" in html(app) and "good on rsvqa-lr" in html(app)
    assert any('"fingerprint": "good"' in text or '"fingerprint"' in text for text in texts(app))
    assert "running" in list(app.dataframe[0].value["status"])


def spoilt(value: Any, rng: random.Random) -> Any:
    """JSON of the same form in which some values have another type, or are missing."""
    if rng.random() < 0.15:
        return rng.choice([None, [], {}, "", -1, 1e308, math.inf, math.nan, True, "x" * 500, [[1]], "<b>"])
    if isinstance(value, dict):
        return {name: spoilt(inner, rng) for name, inner in value.items() if rng.random() > 0.05}
    return [spoilt(inner, rng) for inner in value] if isinstance(value, list) else value


def spoil(folder: Path, seed: int) -> None:
    """Put other types into every JSON text of a run folder."""
    rng = random.Random(f"{seed}{folder}")
    for name in ("manifest.json", "summary.json"):
        (folder / name).write_text(json.dumps(spoilt(json.loads((folder / name).read_text()), rng)))
    for path in folder.glob("responses-*.jsonl"):
        lines = (json.dumps(spoilt(json.loads(line), rng)) for line in path.read_text().splitlines())
        path.write_text("".join(f"{line}\n" for line in lines))


def pipe(folder: Path, name: str) -> None:
    """A pipe that nobody writes to."""
    (folder / name).unlink()
    os.mkfifo(folder / name)


def link(path: Path, target: str) -> None:
    """A symbolic link in place of a file."""
    path.unlink()
    path.symlink_to(target)


BREAKS: dict[str, Callable[[Path], object]] = {
    "types 1": lambda folder: spoil(folder, 1),
    "types 2": lambda folder: spoil(folder, 2),
    "pipe": lambda folder: pipe(folder, "records.parquet"),
    "link": lambda folder: link(folder / "summary.json", "/dev/zero"),
    "manifest": lambda folder: (folder / "manifest.json").write_text("{"),
    "summary": lambda folder: (folder / "summary.json").write_text('{"metrics": 3, "groups": [1]}'),
    "groups": lambda folder: (folder / "summary.json").write_text(
        json.dumps(
            {
                "status": "complete",
                "metrics": {"average": {"value": 1}},
                "groups": {"type": [1], "x": {"y": 2}},
            }
        )
    ),
    "records": lambda folder: (folder / "records.parquet").write_bytes(b"nothing"),
    "no records": lambda folder: (folder / "records.parquet").unlink(),
    "responses": lambda folder: (folder / "responses-0.jsonl").write_bytes(b"\xff\xfe{"),
    "everything": lambda folder: [path.unlink() for path in folder.iterdir() if path.is_file()],
}


@pytest.fixture(scope="module", params=BREAKS)
def broken_tree(
    request: pytest.FixtureRequest, real_tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Runs of one task that are broken in one way, and whole ones of another."""
    models = ("good", "worse", "tuned@step-100", "tuned@step-200")
    folder = tmp_path_factory.mktemp("broken")
    tree = small_tree(real_tree, folder, *models)
    shutil.copytree(real_tree / "good/dior-rsvg@miniature", tree / "good/dior-rsvg@miniature")
    shutil.copytree(real_tree.parent / "checkpoints", folder / "checkpoints")
    for run in tree.glob("*/rsvqa-lr@miniature/2*"):
        BREAKS[request.param](run)
    return tree


@pytest.mark.parametrize("name", PAGES)
def test_half_written_folders_stop_no_page(broken_tree: Path, name: str) -> None:
    app = page(name, broken_tree, task="rsvqa-lr", target="rsvqa-lr@miniature", changes="1")
    assert not failed(app)


def test_pages_write_nothing_into_run_folders(tree: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        found = {str(path): path.stat() for path in tree.parent.rglob("*")}
        return {name: (status.st_mtime_ns, status.st_size) for name, status in found.items()}

    (folder,) = (tree / "good" / "rsvqa-lr@miniature").glob("2*")
    (folder / "summary.json").unlink()
    before = state()
    for name in PAGES:
        page(name, tree, task="rsvqa-lr", target="rsvqa-lr@miniature", changes="1")
    assert state() == before


def test_broken_runs_are_listed_as_broken(tree: Path) -> None:
    (folder,) = (tree / "good" / "rsvqa-lr@miniature").glob("2*")
    (folder / "manifest.json").write_text("{")
    app = page("runs", tree, status="broken")
    assert list(app.dataframe[0].value["status"]) == ["broken"]
    assert "Broken: " in html(app)
    assert '<a href="runs?status=broken" target="_self">1 broken</a>' in html(page("overview", tree))


def test_an_error_of_ours_is_one_line_without_a_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evalkit_leaderboard.views import overview

    def explode(_: Any) -> None:
        raise RuntimeError("first <b>line\nsecond")

    monkeypatch.setattr(overview, "render", explode)
    app = page("overview", tmp_path)
    assert not app.exception
    assert "This page cannot be shown (RuntimeError: first &lt;b&gt;line)" in html(app)
    assert "Traceback" not in html(app) and "second" not in html(app)


def test_runs_of_one_name_are_told_apart() -> None:
    from evalkit_leaderboard.naming import run_names

    runs = {
        "a": Run("/r/1", "complete", model="m", created="2026-01-01T10:00:00"),
        "b": Run("/r/2", "complete", model="m", created="2026-01-01T10:00:00"),
        "c": Run("/r/3", "complete", model="m", created="2026-01-02T10:00:00"),
        "d": Run("/r/4", "complete", model="other"),
    }
    names = run_names(runs)
    assert names == {
        "a": "m, 2026-01-01 10:00 (1)",
        "b": "m, 2026-01-01 10:00 (2)",
        "c": "m, 2026-01-02 10:00",
        "d": "other",
    }


@pytest.fixture(scope="module")
def hostile_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs whose every text tries to be something else."""
    from hostile_runs import make_hostile_tree

    folder = tmp_path_factory.mktemp("hostile") / "runs"
    make_hostile_tree(folder)
    return folder


@pytest.mark.parametrize("name", PAGES)
def test_hostile_texts_stop_no_page(hostile_tree: Path, name: str) -> None:
    app = page(name, hostile_tree, task="rsvqa-lr", target="rsvqa-lr@miniature", changes="1", checkpoints="1")
    assert not failed(app)
    content = html(app)
    assert "<script" not in content and "<img src=x" not in content and "<svg" not in content
    assert "<iframe" not in content and "</title" not in content
    assert all(
        address.startswith(("task?", "samples?", "runs?"))
        for address in re.findall(r'<a href="([^"]*)"', content)
    )


@pytest.mark.parametrize(
    ("task", "metric", "sign"), [("rsvqa-lr", "average", -1), ("bdd-x", "speed_rmse", 1)]
)
def test_the_best_values_are_drawn_first(
    tree: Path, monkeypatch: pytest.MonkeyPatch, task: str, metric: str, sign: int
) -> None:
    """The paper's rows among them; those that are not comparable come last."""
    drawn: list[list[dict[str, Any]]] = []
    draw = charts.intervals
    monkeypatch.setattr(charts, "intervals", lambda rows, unit: drawn.append(list(rows)) or draw(rows, unit))
    app = page("task", tree, task=task, metric=metric)
    assert ("Lower is better." in html(app)) == (sign > 0)
    (points,) = drawn
    order = [(point["apart"], sign * point["value"]) for point in points]
    assert order == sorted(order) and len(order) > 2
