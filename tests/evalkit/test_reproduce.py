"""`evalkit reproduce`: the same answers, or which differ; and everything that must be as it was."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from toy import FakeModel

from evalkit import registry
from evalkit.contracts import Failure, ModelInfo, Request, Response
from evalkit.data.images import file_digest
from evalkit.pipeline.results import describe
from evalkit.store import find_runs, load_run


@pytest.fixture
def first(bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of the toy task; the task file is not loaded any more."""
    assert bench.run() == 0
    path = Path(bench.result["run"])
    forget(bench, monkeypatch)
    return path


def forget(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process: no task file is loaded, the model has been asked nothing."""
    monkeypatch.setattr(registry, "_included", {})
    bench.model.asked.clear()


def reproduce(bench, path: Path, *arguments: str | Path) -> int:
    output = bench.output.parent / "again"
    given = () if "--include" in arguments else ("--include", bench.task)
    return int(bench.cli("reproduce", path, "-o", output, "--json", *given, *arguments))


def without_task(bench, path: Path) -> int:
    """`evalkit reproduce` where the user names no task file."""
    return int(bench.cli("reproduce", path, "--json"))


def test_an_equal_run(bench, first: Path) -> None:
    assert reproduce(bench, first) == 0
    found = bench.document
    assert found["equal"] is True and found["compared"] == 20
    assert found["answers"] == found["figures"] == found["versions"] == []
    assert len(bench.model.asked) == 20
    again = Path(found["again"])
    assert again.is_relative_to(bench.output.parent / "again" / first.name)
    assert load_run(again).manifest["identity"] == load_run(first).manifest["identity"]
    assert bench.cli("reproduce", first, "-o", bench.output.parent / "again") == 0
    assert "equal: all 20 answers are the same" in bench.out
    assert len(bench.model.asked) == 40  # a complete reproduction is never taken for a new one


def test_answers_that_differ_are_named(bench, first: Path) -> None:
    bench.model.answers = {"3": "No", "7": "never"}
    assert reproduce(bench, first) == 1
    found = bench.document
    assert found["equal"] is False
    assert [(change["id"], change["after"]) for change in found["answers"]] == [
        ("3", "No"),
        ("7", "never"),
    ]
    assert {change["metric"] for change in found["figures"]} == {"accuracy"}
    assert bench.cli("reproduce", first, "-o", bench.output.parent / "again") == 1
    assert "3: 'Yes', now 'No'" in bench.out and "18 of 20 answers are the same" in bench.out


def test_settings_are_those_of_the_run(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [
        "--limit",
        "7",
        "--seed",
        "3",
        "--gen",
        "max_new_tokens=9",
        "--max-tiles",
        "4",
        "--no-prefix-caching",
        "--compile",
    ]
    assert bench.run(*arguments) == 0
    path, asked = Path(bench.result["run"]), sorted(bench.model.asked)
    forget(bench, monkeypatch)
    assert reproduce(bench, path) == 0
    assert sorted(bench.model.asked) == asked and bench.document["compared"] == 7
    assert bench.family.options.prefix_caching is False and bench.family.options.compile is True
    keys = {load_run(folder).request_keys()[asked[0]] for folder in (path, bench.document["again"])}
    assert len(keys) == 1
    assert load_run(bench.document["again"]).manifest["signature"] == load_run(path).manifest["signature"]


def test_where_it_runs_is_free(bench, first: Path) -> None:
    bench.family.model = None
    assert (
        reproduce(bench, first, "--device", "cuda:3", "--batch-size", "2", "--base-url", "http://x/v1") == 0
    )
    options = bench.family.options
    assert (options.device, options.batch_size, options.base_url) == ("cuda:3", 2, "http://x/v1")
    assert options.dtype == "float32"


def test_only_what_a_broken_off_run_has_is_asked(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks(FakeModel):
        def generate(self, requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
            yield from list(super().generate(requests))[:6]
            raise KeyboardInterrupt

    bench.family.model = Breaks()
    assert bench.run() == 130
    (path,) = find_runs(bench.output)
    bench.family.model = FakeModel()
    forget(bench, monkeypatch)
    assert reproduce(bench, path) == 0
    assert bench.document["compared"] == 6 == len(bench.model.asked)
    assert any("not finished" in note for note in bench.document["notes"])


def test_a_reproduction_that_was_broken_off_goes_on(bench, first: Path) -> None:
    whole = bench.model.generate

    def half(requests: Sequence[Request]) -> Iterator[tuple[str, Response]]:
        for count, answer in enumerate(whole(requests)):
            if count == 8:
                raise KeyboardInterrupt
            yield answer

    bench.model.generate = half
    assert reproduce(bench, first) == 130
    del bench.model.generate
    bench.model.asked.clear()
    assert reproduce(bench, first) == 0
    assert len(bench.model.asked) == 12 and bench.document["compared"] == 20
    assert len(list(find_runs(bench.output.parent / "again"))) == 1


def test_errors_of_one_kind_are_equal_and_an_answer_is_not(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.folder / "p2.png").unlink()
    assert bench.run() == 4
    path = Path(bench.result["run"])
    forget(bench, monkeypatch)
    assert reproduce(bench, path) == 0
    bench.model.answer = lambda request: (
        Response(error=Failure("server", "gone"))
        if request.id == "8"
        else Response(text="Yes", finish="stop")
    )
    assert reproduce(bench, path) == 1
    changes = {change["id"]: change for change in bench.document["answers"]}
    assert (
        changes["8"]["before"].startswith("error: image: ") and changes["8"]["after"] == "error: server: gone"
    )
    assert changes["9"]["after"] == "Yes"


# What must be as it was -----------------------------------------------------------------------------------


def test_a_python_file_that_a_manifest_names_is_never_imported(bench, first: Path) -> None:
    mark = bench.output.parent / "imported"
    evil = bench.output.parent / "evil.py"
    evil.write_text(f"open({str(mark)!r}, 'w')\n")
    manifest = json.loads((first / "manifest.json").read_text())
    manifest["includes"] = [{"path": str(evil), "hash": file_digest(evil)}]
    (first / "manifest.json").write_text(json.dumps(manifest))
    assert without_task(bench, first) == 2
    assert f"if you trust it, give --include {evil}" in bench.err and not mark.exists()
    assert reproduce(bench, first) == 0 and not mark.exists()


def test_a_task_file_that_has_changed_or_gone(bench, first: Path) -> None:
    source = bench.task.read_text()
    bench.task.write_text(source + "\n# changed\n")
    assert without_task(bench, first) == 2
    assert "has changed since" in bench.err and "--include" in bench.err
    bench.task.unlink()
    assert without_task(bench, first) == 2 and "is missing" in bench.err
    elsewhere = bench.output.parent / "elsewhere.py"
    elsewhere.write_text(source)
    assert reproduce(bench, first, "--include", elsewhere) == 0
    assert bench.document["equal"] is True


def test_an_address_in_a_manifest_is_not_contacted(bench, first: Path) -> None:
    manifest = json.loads((first / "manifest.json").read_text())
    manifest["settings"]["base_url"] = "http://127.0.0.1:9/v1"
    (first / "manifest.json").write_text(json.dumps(manifest))
    assert reproduce(bench, first) == 2
    assert "give --base-url URL" in bench.err and bench.model.asked == []
    assert reproduce(bench, first, "--base-url", "http://127.0.0.1:8/v1") == 0


def test_a_run_that_does_not_tell_its_task_file(bench, first: Path) -> None:
    manifest = json.loads((first / "manifest.json").read_text())
    del manifest["includes"]
    (first / "manifest.json").write_text(json.dumps(manifest))
    assert without_task(bench, first) == 2
    assert "'yes-no' is not installed" in bench.err and "give --include FILE" in bench.err
    assert reproduce(bench, first, "--include", bench.task) == 0


def test_data_that_has_changed(bench, first: Path) -> None:
    lines = (bench.folder / "test.jsonl").read_text()
    (bench.folder / "test.jsonl").write_text(lines.replace("Is 3 it?", "Is 3 that?"))
    assert reproduce(bench, first) == 3
    assert "has changed (hash" in bench.err and bench.model.asked == []
    (bench.folder / "test.jsonl").write_text(lines)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(bench.folder / "p0.png")
    assert reproduce(bench, first) == 3
    assert "4 of 20 requests have changed (first: 0" in bench.err and bench.model.asked == []


def test_data_somewhere_else(bench, first: Path) -> None:
    moved = bench.output.parent / "moved"
    bench.folder.rename(moved)
    assert reproduce(bench, first, "--include", moved / "yes_no.py") == 3
    assert reproduce(bench, first, "--include", moved / "yes_no.py", "--data-root", moved) == 0


@pytest.mark.parametrize(
    "change", [{"fingerprint": "1"}, {"settings": {"template": "x"}, "dtype": "float16"}]
)
def test_another_model(change: dict[str, Any], bench, first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = dataclasses.replace(bench.model.info, **change)
    monkeypatch.setattr(FakeModel, "info", property(lambda self: info))
    if "fingerprint" in change:
        assert reproduce(bench, first) == 3
        assert (
            "other weights, settings, tokenizer or template than the run" in bench.err
            and bench.model.asked == []
        )
    else:
        assert reproduce(bench, first) == 0
        assert "dtype: float32, now float16" in bench.document["notes"]
        assert "model setting template: None, now 'x'" in bench.document["notes"]


def test_an_identity_of_an_older_form(bench, first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = json.loads((first / "manifest.json").read_text())
    del manifest["model"]["weights"]  # as stored when the fingerprint was the weights' hash
    (first / "manifest.json").write_text(json.dumps(manifest))
    assert any(note.startswith("identity of an older form") for note in describe(load_run(first))["notes"])
    info = dataclasses.replace(bench.model.info, fingerprint="of all", weights="0")
    monkeypatch.setattr(FakeModel, "info", property(lambda self: info))
    assert reproduce(bench, first) == 0
    assert any(note.startswith("identity of an older form") for note in bench.document["notes"])
    info = dataclasses.replace(info, weights="1")
    assert reproduce(bench, first) == 3
    assert "other weights than the run" in bench.err


def test_versions_that_differ_are_told(bench, first: Path) -> None:
    manifest = json.loads((first / "manifest.json").read_text())
    manifest["versions"]["torch"] = "0.1"
    (first / "manifest.json").write_text(json.dumps(manifest))
    assert reproduce(bench, first) == 0
    (change,) = bench.document["versions"]
    assert change["package"] == "torch" and change["before"] == "0.1"


def test_what_is_no_run(bench, first: Path) -> None:
    assert reproduce(bench, bench.output) == 3 and "not a run folder" in bench.err
    for file in first.glob("responses-*"):
        file.unlink()
    assert reproduce(bench, first) == 3 and "holds no answers yet" in bench.err


def test_a_model_without_fingerprint_is_said(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeModel, "info", property(lambda self: ModelInfo(name="fake")))
    assert bench.run() == 0
    path = Path(bench.result["run"])
    forget(bench, monkeypatch)
    assert reproduce(bench, path) == 0
    assert any("has no fingerprint" in note for note in bench.document["notes"])
