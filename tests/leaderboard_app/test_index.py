"""Run folders as the index sees them, whatever they hold."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalkit_leaderboard import index as index_module
from evalkit_leaderboard import runs as runs_module
from evalkit_leaderboard.index import Index, find_folders
from evalkit_leaderboard.matrix import Column, build
from evalkit_leaderboard.runs import Run, read_run


def look(root: Path, cache: Path) -> Index:
    found = Index([root], cache)
    found.refresh(patience=0)
    return found


def test_every_run_is_found_with_what_its_summary_says(real_tree: Path, tmp_path: Path) -> None:
    runs = look(real_tree, tmp_path).runs
    assert len(runs) == 16
    for run in runs.values():
        summary = json.loads((run.folder / "summary.json").read_text())
        assert (run.model, run.task, run.split) == (summary["model"], summary["task"], "miniature")
        assert run.status == summary["status"] and run.signature == summary["signature"]
        assert {n: f.value for n, f in run.metrics.items()} == {
            n: content["value"] for n, content in summary["metrics"].items()
        }
        assert run.parameters == 2_800_000 and run.scored and run.speed and run.speed > 0


def test_the_second_look_reads_no_unchanged_run(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = look(tree, tmp_path / "cache")
    read: list[Path] = []
    monkeypatch.setattr(index_module, "read_run", lambda path: read.append(path) or read_run(path))
    second = look(tree, tmp_path / "cache")
    assert second.runs == first.runs and not read and second.version == 0
    changed = next(iter(second.runs.values())).folder
    summary = json.loads((changed / "summary.json").read_text())
    summary["metrics"]["extra"] = {"value": 1.5, "unit": "percent", "n": 3, "ci95": None}
    (changed / "summary.json").write_text(json.dumps(summary))
    assert second.refresh(patience=0) and read == [changed] and second.version == 1
    assert any("extra" in run.metrics for run in second.runs.values())


def test_new_and_deleted_runs_are_seen_without_restart(tree: Path, tmp_path: Path) -> None:
    index = look(tree, tmp_path / "cache")
    count = len(index.runs)
    old = next(iter(index.runs.values())).folder
    shutil.copytree(old, tree / "new" / old.parent.name / "20300101-000000-abcdef")
    assert index.refresh(patience=0) and len(index.runs) == count + 1
    shutil.rmtree(old)
    assert index.refresh(patience=0) and len(index.runs) == count
    assert not index.refresh(patience=0)


def test_looks_are_not_repeated_within_the_patience(tree: Path, tmp_path: Path) -> None:
    index = look(tree, tmp_path / "cache")
    shutil.rmtree(tree)
    assert not index.refresh(patience=60) and index.runs
    assert index.refresh(patience=0) and not index.runs


@pytest.mark.parametrize("spoil", ["cut", "text", "other"])
def test_a_spoilt_cache_is_made_again(tree: Path, tmp_path: Path, spoil: str) -> None:
    cache = tmp_path / "cache"
    runs = look(tree, cache).runs
    (file,) = cache.glob("*.parquet")
    if spoil == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    elif spoil == "text":
        file.write_text("not a table")
    else:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        parquet.write_table(pa.table({"key": ["x"], "stamp": ["y"], "content": ['{"path": 1}']}), file)
    assert look(tree, cache).runs == runs


def test_a_cache_that_cannot_be_written_costs_only_time(tree: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    assert len(look(tree, blocked / "cache").runs) == 16


def test_nothing_is_written_into_run_folders(tree: Path, tmp_path: Path) -> None:
    def state() -> list[tuple[str, int]]:
        return sorted((str(p), p.stat().st_mtime_ns) for p in tree.rglob("*"))

    before = state()
    look(tree, tmp_path / "cache")
    assert state() == before


def test_two_roots_do_not_share_an_index(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert len(look(tree, cache).runs) == 16
    assert len(look(tree / "good", cache).runs) == 3
    assert len(look(tree, cache).runs) == 16


def test_runs_of_several_folders_each_once(tree: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tree, tmp_path / "other"))
    index = Index([tree, other, tree / "good", tree], tmp_path / "cache")
    index.refresh(patience=0)
    assert len(index.runs) == 32 and len({run.path for run in index.runs.values()}) == 32
    key, run = next((key, run) for key, run in index.runs.items() if run.path.startswith(str(tree)))
    assert index.place_of(run.path) == str(run.folder.relative_to(tree))
    shutil.rmtree(run.folder)  # its copy in the other folder must not take its address
    index.refresh(patience=0)
    assert len(index.runs) == 31 and key not in index.runs


def test_a_run_being_written_is_running_and_then_broken_off(tree: Path, tmp_path: Path) -> None:
    index = look(tree, tmp_path / "cache")
    key, run = next(iter(index.runs.items()))
    (run.folder / "summary.json").unlink()
    with FileLock(run.folder / ".lock"):
        index.refresh(patience=0)
        assert index.runs[key].status == "running"
    index.refresh(patience=0)
    assert index.runs[key].status == "partial" and not index.runs[key].metrics


SPOILT = {
    "manifest is cut": ("manifest.json", b'{"model": {"na'),
    "manifest is empty": ("manifest.json", b""),
    "manifest is a list": ("manifest.json", b"[1, 2]"),
    "manifest is nested": ("manifest.json", b"[" * 100_000),
    "summary is cut": ("summary.json", b'{"status": "comp'),
    "summary is bytes": ("summary.json", bytes(range(256))),
}


@pytest.mark.parametrize("name", SPOILT)
def test_broken_files_make_a_broken_run(tree: Path, name: str) -> None:
    folder = Path(next(find_folders(str(tree))))
    file, content = SPOILT[name]
    (folder / file).write_bytes(content)
    run = read_run(folder)
    assert run.status == "broken" and file in run.reason


@pytest.mark.parametrize("value", ["0.5", True, [1], math.nan, math.inf])
@pytest.mark.parametrize("part", ["value", "n", "ci95"])
def test_a_number_of_another_type_makes_a_run_broken_and_the_older_one_stands(
    tree: Path, tmp_path: Path, value: object, part: str
) -> None:
    old = next((tree / "good" / "rsvqa-lr@miniature").glob("2*"))
    new = Path(shutil.copytree(old, old.with_name("20300101-000000-abcdef")))
    for name, change in (("manifest.json", {"created": "2030-01-01T00:00:00"}), ("summary.json", {})):
        content = {**json.loads((new / name).read_text()), **change}
        if not change:
            content["metrics"]["average"][part] = [0.1, value] if part == "ci95" else value
        (new / name).write_text(json.dumps(content))
    runs = look(tree, tmp_path / "cache").runs
    (spoilt,) = [run for run in runs.values() if run.folder == new]
    assert spoilt.status == "broken" and "summary.json: " in spoilt.reason
    assert (spoilt.model, spoilt.task) == ("good", "rsvqa-lr") and not spoilt.metrics
    row = build(runs).row("good")
    assert row is not None and runs[row.cells[Column("rsvqa-lr", "miniature", "average")].run].folder == old


def test_a_folder_without_manifest_is_broken_not_hidden(tree: Path) -> None:
    folder = Path(next(find_folders(str(tree))))
    (folder / "manifest.json").unlink()
    assert str(folder) in list(find_folders(str(tree)))
    assert read_run(folder).status == "broken" and "manifest.json" in read_run(folder).reason


def test_absurd_files_are_refused_unread(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(next(find_folders(str(tree))))
    monkeypatch.setattr(runs_module, "_LARGEST_JSON", 100)
    assert read_run(folder).status == "broken"
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    assert read_run(folder).status == "broken"  # reading the pipe would wait for ever


def test_links_are_not_followed(tree: Path) -> None:
    (tree / "loop").symlink_to(tree, target_is_directory=True)
    assert len(list(find_folders(str(tree)))) == 16


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "status",
    "model",
    "task",
    "split",
    "metrics",
    "counts",
    "notes",
    "nonstandard",
    "limited",
    "signature",
)
PARTS = ("model", "task", "settings", "selection", "sessions", "outcome", "created", "signature")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    summary=st.dictionaries(st.sampled_from(FIELDS), json_values),
    manifest=st.dictionaries(st.sampled_from(PARTS), json_values),
    cell=json_values,
)
def test_any_json_makes_some_run(
    tmp_path: Path, summary: dict[str, object], manifest: dict[str, object], cell: object
) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "summary.json").write_text(
        json.dumps({**summary, "metrics": {"m": cell, "n": {"value": cell}}})
    )
    run = read_run(tmp_path)
    assert run.status
    assert Run.from_json(json.loads(json.dumps(run.to_json()))) == run


def test_series_and_steps_come_from_the_checkpoint() -> None:
    def of(model: str) -> tuple[str, int | None]:
        run = Run("", "complete", model=model)
        return run.series, run.step

    assert of("tiny@step-200") == ("tiny@step", 200)
    assert of("tiny@checkpoint_15") == ("tiny@checkpoint", 15)
    assert of("tiny@500") == ("tiny", 500)
    assert of("tiny@best") == ("tiny@best", None)
    assert of("mini-internvl-2b") == ("mini-internvl-2b", None)
