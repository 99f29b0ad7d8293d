"""The command line: names, environment, exit statuses, one line an error, one document on stdout."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from evalkit import registry
from evalkit.cli.main import COMMANDS, cli, invoke
from evalkit.text import one_line, visible

HEAVY = {
    "torch",
    "transformers",
    "pandas",
    "streamlit",
    "pyarrow",
    "datasets",
    "numpy",
    "PIL",
    "huggingface_hub",
}


@pytest.mark.parametrize(
    "code", ["import evalkit", "from evalkit.cli.main import invoke; invoke(['--help'])"]
)
def test_starting_imports_nothing_heavy(code: str) -> None:
    probe = f"import sys; {code}; print('|' + ' '.join(sorted({{n.split('.')[0] for n in sys.modules}})))"
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(out.rpartition("|")[2].split())


@pytest.mark.parametrize(
    "code", ["import evalkit", "from evalkit.cli.main import invoke; invoke(['--help'])"]
)
def test_starting_is_quick(code: str) -> None:
    measure = f"import time; t = time.process_time(); {code}; print('|', time.process_time() - t)"
    seconds = min(
        float(
            subprocess.run([sys.executable, "-c", measure], capture_output=True, text=True).stdout.split("|")[
                -1
            ]
        )
        for _ in range(3)
    )
    assert seconds < 0.25


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


def test_module_and_version() -> None:
    done = subprocess.run([sys.executable, "-m", "evalkit", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("evalkit ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "no command 'rnu' (nearest: run"),
        (["tasks"], "no command 'tasks' (nearest: list tasks)"),
        (["run", "-t", "yes-no"], "--model"),
        (["run", "-m", "fake"], "--task"),
        (["run", "-m", "fak", "-t", "yes-no"], "unknown model 'fak' (nearest: fake"),
        (["run", "-m", "fake", "-t", "yes-on"], "unknown task or suite 'yes-on' (nearest: yes-no"),
        (["run", "-m", "fake", "-t", "yes-no", "--split", "tset"], "no split 'tset'"),
        (["run", "-m", "fake", "-t", "yes-no", "--protocol", "papre"], "no protocol 'papre'"),
        (["run", "-m", "fake", "-t", "yes-no", "--limti", "5"], "--limti"),
        (["run", "-m", "fake", "-t", "yes-no", "--limit", "0"], "--limit 0"),
        (["run", "-m", "fake", "-t", "yes-no", "--limit", "x"], "x"),
        (["run", "-m", "fake", "-t", "yes-no", "--gen", "max_new_tokens"], "KEY=VALUE"),
        (["run", "-m", "fake", "-t", "yes-no", "--gen", "max_new_tokens=many"], "not a number"),
        (["run", "-m", "fake", "-t", "yes-no", "--gen", "top_p=0"], "top_p"),
        (["run", "-m", "fake", "-t", "yes-no", "--max-errors", "-1"], "--max-errors -1"),
        (["run", "-m", "fake", "-t", "yes-no", "--max-errors", "nan%"], "--max-errors"),
        (["run", "-m", "fake", "-t", "yes-no", "--batch-size", "many"], "auto"),
        (["run", "-m", "fake", "-t", "yes-no", "--batch-size", "0"], "--batch-size 0"),
        (["run", "-m", "fake", "-t", "yes-no", "--max-tiles", "0"], "--max-tiles 0"),
        (["run", "-m", "fake", "-t", "yes-no", "--judge", "http://x"], "--judge-model"),
        (["run", "-m", "fake", "-t", "yes-no", "--limit", "3", "--sample-id", "1"], "exclude each other"),
        (["run", "-m", "fake", "-t", "yes-no", "--include", "none.py"], "none.py: no such file"),
        (["list", "taks"], "taks"),
        (["show"], "RUN"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(bench, arguments: list[str], said: str) -> None:
    included = ["--include", str(bench.task)] if arguments[0] == "run" else []
    data = ["--data-root", str(bench.folder)] if arguments[0] == "run" else []
    assert bench.cli(*arguments, *included, *data) == 2
    assert said in bench.err and bench.err.startswith("evalkit: error: ")
    assert len(bench.err.strip().splitlines()) == 1 and bench.out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "nowhere"], "no such run folder"),
        (["score", "nowhere"], "no such run folder"),
        (["export", "yes-no", "nowhere"], "no such run folder"),
        (["run", "-m", "predictions:nowhere.jsonl", "-t", "yes-no"], "no such predictions file"),
    ],
)
def test_what_is_missing_is_one_line_and_status_3(bench, arguments: list[str], said: str) -> None:
    flags = ["--include", bench.task] if arguments[0] != "show" else []
    flags += ["--data-root", bench.folder] if arguments[0] == "run" else []
    assert bench.cli(*arguments, *flags) == 3
    assert said in bench.err and len(bench.err.strip().splitlines()) == 1


def test_the_data_is_looked_for_before_the_model_is_loaded(bench) -> None:
    (bench.folder / "test.jsonl").unlink()
    text = bench.task.read_text().replace("    def metrics", '''    def data_files(self, split: str):
        from evalkit import DataFile

        return [DataFile(f"{split}.jsonl", "https://example.org/yes-no", "CC0")]

    def metrics''')  # fmt: skip
    bench.task.write_text(text)
    assert bench.run() == 3
    assert bench.family.model is None
    assert "test.jsonl" in bench.err and "https://example.org/yes-no" in bench.err


def test_a_traceback_only_with_v(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(bench.family, "load", broken)
    assert bench.run() == 3
    assert "ZeroDivisionError: boom" in bench.err and "Traceback" not in bench.err
    assert bench.run("-v") == 3
    assert "Traceback" in bench.err


def test_v_shows_what_every_package_logs(bench) -> None:
    names = ("evalkit", "evalkit_tasks", "evalkit_models", "mini_internvl", "mini_internvl_train")
    assert bench.cli("list", "models") == 0
    assert not any(logging.getLogger(name).isEnabledFor(logging.DEBUG) for name in names)
    try:
        assert bench.cli("list", "models", "-v") == 0
        assert all(logging.getLogger(name).isEnabledFor(logging.DEBUG) for name in names)
    finally:
        for name in names:
            logging.getLogger(name).setLevel(logging.NOTSET)


def test_underscore_spellings(bench) -> None:
    flags = ["--data_root", bench.folder, "--max_errors", "3", "--sample_id", "1", "--batch_size", "2"]
    assert (
        bench.cli("run", "--include", bench.task, "-m", "fake", "-t", "yes-no", "-o", bench.output, *flags)
        == 0
    )
    assert bench.model.asked == ["1"] and bench.family.options.batch_size == 2


def test_every_flag_from_the_environment(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "MODEL": "fake", "TASK": "yes-no", "DATA": str(bench.folder), "OUTPUT": str(bench.output),
        "LIMIT": "6", "SEED": "3", "MAX_TILES": "4", "GEN": "max_new_tokens=5 min_new_tokens=2", "JSON": "1",
        "DTYPE": "float16", "DEVICE": "cpu", "BATCH_SIZE": "7", "MAX_ERRORS": "5%", "PROTOCOL": "paper",
        "INCLUDE": str(bench.task), "SPLIT": "test", "CHECKPOINT": "/weights",
         "OFFLINE": "true", "BASE_URL": "http://x", "QUIET": "1",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"EVALKIT_{name}", value)
    assert bench.cli("run") == 0
    run = bench.result
    assert run["counts"]["expected"] == 6
    assert run["nonstandard"] == {"max_new_tokens": 5, "min_new_tokens": 2, "max_tiles": 4}
    options = bench.family.options
    assert (options.dtype, options.device, options.batch_size, options.offline) == ("float16", "cpu", 7, True)
    assert (options.checkpoint, options.base_url, options.seed) == ("/weights", "http://x", 3)
    monkeypatch.setenv("EVALKIT_NO_RESUME", "1")
    assert bench.cli("run") == 0
    assert bench.result["run"] != run["run"]
    assert bench.cli("run", "--resume", "--limit", "7") == 0  # what is typed wins
    assert bench.result["counts"]["expected"] == 7


def test_a_variable_is_a_default_for_the_models_that_use_it(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BASE_URL": "http://x", "COMPILE": "1", "DEVICE": "cpu"}.items():
        monkeypatch.setenv(f"EVALKIT_{name}", value)
    bench.family.unused = ("base_url", "compile")
    assert bench.run() == 0
    options = bench.family.options
    assert (options.base_url, options.compile, options.device) == (None, False, "cpu")
    assert (
        bench.cli("reproduce", bench.result["run"], "--include", bench.task, "-o", bench.output / "again")
        == 0
    )
    bench.family.model = None
    assert bench.run("--base-url", "http://y") == 0
    assert bench.family.options.base_url == "http://y"  # what is typed is for the family to refuse


@pytest.mark.parametrize(
    "model", ["mini-internvl-tiny", "hf:owner/name", "predictions:answers.jsonl", "openai:m"]
)
def test_what_a_model_has_no_use_for_is_refused_where_it_is_typed(
    model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    typed = {
        "base_url": ["--base-url", "http://127.0.0.1:9/v1"], "compile": ["--compile"],
        "device": ["--device", "cpu"], "devices": ["--devices", "2"], "engine": ["--engine", "ray"],
        "prefix_caching": ["--no-prefix-caching"],
    }  # fmt: skip
    place = ["-t", "chartqa", "--split", "miniature", "-o", str(tmp_path)]
    place += typed["base_url"] if model.startswith("openai") else []
    for name in registry.family(model).unused:
        assert invoke(["run", "-m", model, *place, *typed[name]]) == 2
        assert "no meaning with" in capsys.readouterr().err


def test_the_data_root_may_hold_a_folder_for_each_task(bench) -> None:
    above = bench.folder.parent
    bench.folder.rename(above / "yes-no")
    moved = above / "yes-no" / "yes_no.py"
    flags = ["-m", "fake", "-t", "yes-no", "-o", bench.output, "--json"]
    assert bench.cli("run", "--include", moved, "--data-root", above, *flags) == 0
    assert bench.cli("run", "--include", moved, "--data-root", above / "yes-no", *flags) == 0


def test_tasks_by_comma_and_glob(bench) -> None:
    assert bench.cli("run", "--include", bench.task, "-m", "fake", "-t", "yes-n*,yes-no", "-t", "yes-no@test",
                     "--data-root", bench.folder, "-o", bench.output, "--json") == 0  # fmt: skip
    assert {run["task"] for run in bench.document["runs"]} == {"yes-no"}


def test_a_dry_run_loads_nothing_and_shows_the_plan(bench) -> None:
    assert bench.run("--dry-run") == 0
    (plan,) = bench.document["plans"]
    assert bench.family.model is None and not bench.output.exists()
    assert (plan["requests"], plan["groups"], plan["pictures"], plan["picture_uses"]) == (20, 5, 5, 20)
    assert plan["tiles"] == 5 and plan["tile_uses"] == 20 and plan["new_tokens_at_most"] == 2000
    assert bench.document["batching"]["evalkit"]["window"] == 256
    assert plan["first_prompt"]["messages"] == [{"role": "user", "text": "Is 0 it?\nAnswer yes or no."}]
    (bench.folder / "p1.png").unlink()
    flags = ["--include", bench.task, "-t", "yes-no", "--data-root", bench.folder, "--dry-run"]
    assert bench.cli("run", "-m", "fake", *flags) == 0
    assert "Answer yes or no." in bench.out and "unreadable" in bench.out and "20 of 20" in bench.out
    assert "batching   evalkit: window 256, largest_group 2048" in bench.out
    assert bench.cli("run", "-m", "fak", *flags) == 2


def test_people_are_told_figures_signature_folder_and_what_to_type(bench) -> None:
    flags = [
        "--include",
        bench.task,
        "-m",
        "fake",
        "-t",
        "yes-no",
        "--data-root",
        bench.folder,
        "-o",
        bench.output,
    ]
    (bench.folder / "p1.png").unlink()
    assert bench.cli("run", *flags, "--limit", "18", "--max-tiles", "3") == 4
    for words in ("accuracy", "95% interval", "partial (limited)", "NON-STANDARD: max_tiles=3", "signature",
                  "next:", "--failed", "rest on the answered samples", str(bench.output)):  # fmt: skip
        assert words in bench.out
    assert "more samples failed than --max-errors" in bench.err


def test_notes_of_the_model_are_carried_everywhere(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from toy import FakeModel

    from evalkit.contracts import ModelInfo

    noted = ModelInfo(name="fake", fingerprint="0", notes=("untrained",))
    monkeypatch.setattr(FakeModel, "info", noted)
    assert bench.run() == 0
    folder = bench.result["run"]
    assert bench.result["notes"] == ["untrained"]
    for arguments in (
        ["show", folder],
        ["score", folder, "--include", bench.task],
        ["list", "runs", "-o", bench.output],
    ):
        assert bench.cli(*arguments) == 0
        assert "untrained" in bench.out
    assert bench.cli("score", folder, "--include", bench.task, "--json") == 0
    assert bench.result["notes"] == ["untrained"]


def test_show_run_sample_and_failed(bench) -> None:
    (bench.folder / "p1.png").unlink()
    bench.run()
    folder = bench.result["run"]
    summary = bench.result
    assert bench.cli("show", folder, "--json") == 0
    assert bench.result == summary
    assert bench.cli("show", folder) == 0
    assert "odd" in bench.out and "even" in bench.out
    assert bench.cli("show", folder, "--failed") == 0
    assert "p1.png" in bench.out and bench.out.count("image") >= 4
    assert bench.cli("show", folder, "--failed", "--json") == 0
    assert [row["id"] for row in bench.document["samples"]] == ["4", "5", "6", "7"]
    assert bench.cli("show", folder, "--sample", "8") == 0
    assert "Is 8 it?" in bench.out and "target" in bench.out and "p2.png" in bench.out
    assert bench.cli("show", folder, "--sample", "4") == 0
    assert "no answer (image)" in bench.out
    assert bench.cli("show", folder, "--sample", "88") == 2
    assert "nearest: 8" in bench.err


def test_list_runs_shows_broken_folders_too(bench) -> None:
    bench.run()
    folder = Path(bench.result["run"])
    for name, text in (("a", "{"), ("b", '{"model": 3}'), ("c", '{"model": {"name": "\\u001b[31mx"}}')):
        (folder.parent / f"2000-{name}").mkdir()
        (folder.parent / f"2000-{name}" / "manifest.json").write_text(text)
    (folder.parent / "2000-c" / "summary.json").write_text('{"metrics": [], "counts": 3, "status": []}')
    assert bench.cli("list", "runs", "-o", bench.output, "--json") == 0
    assert len(bench.document["runs"]) == 4
    assert [run["status"] for run in bench.document["runs"]] == ["broken", "broken", "broken", "complete"]
    assert bench.cli("list", "runs", "-o", bench.output) == 0
    assert "accuracy" in bench.out and "\x1b" not in bench.out
    assert bench.cli("show", folder.parent / "2000-a") == 3


@pytest.mark.parametrize(
    "damage",
    [{"metrics": 3}, {"counts": {}}, {"metrics": {"accuracy": {}}}, {"reference": [3]}, {"signature": None}],
)
def test_a_summary_of_another_shape_is_refused_in_one_line(bench, damage: dict[str, object]) -> None:
    bench.run()
    path = Path(bench.result["run"]) / "summary.json"
    path.write_text(json.dumps({**bench.result, **damage}))
    for flags in ([], ["--json"]):
        assert bench.cli("show", path.parent, *flags) == 3
        assert "summary.json" in bench.err and "Error" not in bench.err
    assert bench.cli("score", path.parent, "--include", bench.task) == 0
    assert bench.cli("show", path.parent) == 0


def test_many_figures_are_shown_in_several_tables() -> None:
    from evalkit.reports.run import run_text

    names = [f"figure_{number}" for number in range(25)]
    run = {
        "run": "r",
        "status": "complete",
        "model": "\x1b[31mm",
        "task": "t",
        "split": "s",
        "protocol": "p",
        "counts": {"expected": 1, "answered": 1, "errors": 0, "unparsed": 0, "truncated": 0},
        "metrics": {name: {"value": 1.0, "unit": "percent", "n": 1, "ci95": None} for name in names},
        "groups": {"kind": {"a": {name: {"value": 1.0, "n": 1} for name in names}}},
        "reference": [{"table": "2", "model": "M", "metrics": dict.fromkeys(names, 2.0)}],
        "signature": "x",
    }
    text = run_text(run, with_groups=True)
    assert max(map(len, text.splitlines())) < 180 and "\x1b" not in text
    assert text.count("published") == 3 and all(text.count(f"{name} ") >= 2 for name in names[:9])


def test_list_tasks_models_suites(bench) -> None:
    for what in ("tasks", "models", "suites"):
        assert bench.cli("list", what, "--include", bench.task, "--data-root", bench.folder) == 0
        assert bench.out.strip()
        assert bench.cli("list", what, "--include", bench.task, "--data-root", bench.folder, "--json") == 0
        items = {item["name"]: item for item in bench.document[what]}
        if what == "tasks":
            assert items["yes-no"]["metrics"] == ["accuracy"] and "miniature" in items["yes-no"]["splits"]
            assert "test" in items["yes-no"]["at_hand"]


def test_doctor_says_what_is_missing_and_the_fix(bench) -> None:
    status = bench.cli("doctor", "--json", "-o", bench.output)
    findings = {finding["what"]: finding for finding in bench.document["findings"]}
    assert status == 0 and findings["python"]["state"] == "ok" and findings["torch"]["state"] == "ok"
    assert all(finding["mend"] for finding in findings.values() if finding["state"] != "ok")
    assert bench.cli("doctor", "-o", bench.output) == 0
    assert "fix" in bench.out.splitlines()[0] and "mend" not in bench.out


def test_export_writes_the_tasks_file(bench) -> None:
    bench.run()
    folder = bench.result["run"]
    assert bench.cli("export", "yes-no", folder, "--include", bench.task) == 2
    assert "no submission file" in bench.err
    text = bench.task.read_text() + (
        "    def export(self, records, path):\n"
        "        path.write_text(' '.join(record.text for record in records))\n"
    )
    bench.task.write_text(text)
    assert bench.cli("export", "yes-no", folder, "--include", bench.task) == 0
    written = Path(bench.out.strip())
    assert written == Path(folder) / "submission.json" and "Yes" in written.read_text()
    target = bench.folder / "new" / "file.txt"
    assert bench.cli("export", "yes-no", folder, "-o", target, "--include", bench.task) == 0
    assert target.is_file()
    assert bench.cli("export", "drivelm", folder, "--include", bench.task) == 2
    assert "is a run of yes-no" in bench.err


def test_predictions_from_the_command_line(bench, predictions) -> None:
    rows = "".join(f'{{"question_id": {i}, "answer": "{"yes" if i % 3 else "no"}"}}\n' for i in range(20))
    path = predictions("answers.jsonl", rows)
    assert bench.run(model=f"predictions:{path}") == 0
    assert bench.result["metrics"]["accuracy"]["value"] == 100.0
    assert bench.result["model"] == "predictions:answers.jsonl"
    assert bench.result["counts"]["unknown"] == 0
    for picture in bench.folder.glob("*.png"):
        picture.unlink()
    assert bench.run(model=f"predictions:{path}") == 0  # stored answers need no pictures
    path.write_text("".join(rows.splitlines(keepends=True)[:4]) + '{"id": "x", "text": "y"}\n')
    assert bench.run(model=f"predictions:{path}") == 4
    assert bench.result["counts"]["errors"] == 16 and bench.result["counts"]["unknown"] == 1
    assert bench.result["metrics"]["accuracy"]["n"] == 4


def test_predictions_of_no_sample_at_all(bench, predictions) -> None:
    from toy import make_benchmark

    make_benchmark(bench.folder, samples=120)
    path = predictions("answers.jsonl", '{"id": "x", "text": "y"}\n')
    assert bench.run(model=f"predictions:{path}") == 4
    assert bench.result["status"] == "failed" and "id_field" in bench.err


def test_check_reference_compares_with_the_row_of_the_same_model(bench) -> None:
    text = bench.task.read_text() + (
        "    def references(self):\n"
        "        from evalkit import Reference\n"
        "        return [Reference('3', name, {'accuracy': 50.0}) for name in ('Other', 'Fake')]\n"
    )
    bench.task.write_text(text)
    assert bench.run("--check-reference") == 0
    check = bench.result["reference_check"]
    value = bench.result["metrics"]["accuracy"]["value"]
    assert check["row"]["model"] == "Fake"
    assert check["differences"][0]["difference"] == value - 50.0
    flags = [
        "--include",
        bench.task,
        "-m",
        "fake",
        "-t",
        "yes-no",
        "--data-root",
        bench.folder,
        "-o",
        bench.output,
    ]
    assert bench.cli("run", *flags, "--check-reference") == 0
    assert "published" in bench.out and "against the published row of Fake (table 3)" in bench.out


@pytest.mark.parametrize(
    ("model", "row"),
    [
        ("mini-internvl-2b", "Mini-InternVL-2B"),
        ("OpenGVLab/InternVL2-2B", "Mini-InternVL-2B"),
        ("mini-internvl-1b-da-drivelm", "Mini-InternVL-DA-1B"),
        ("OpenGVLab/Mini-InternVL2-4B-DA-Drivelm", "Mini-InternVL-DA-4B"),
        ("OpenGVLab/InternVL2-8B", None),
        ("my-model", None),
    ],
)
def test_models_find_their_published_row(model: str, row: str | None) -> None:
    from evalkit.reports.run import matching_row

    names = ["Mini-InternVL-1B", "Mini-InternVL-2B", "Mini-InternVL-DA-1B", "Mini-InternVL-DA-4B"]
    found = matching_row(model, [{"model": name, "metrics": {}} for name in names])
    assert (found and found["model"]) == row


def test_a_plugin_that_cannot_be_loaded_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    from importlib.metadata import EntryPoint

    from evalkit import registry

    points = [
        EntryPoint("bad", "nowhere.at_all:X", "evalkit.tasks"),
        EntryPoint("sys", "sys:path", "evalkit.tasks"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert list(registry._plugins("evalkit.tasks")) == [sys.path]
    assert "bad (nowhere.at_all:X) cannot be loaded" in caplog.text


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m evalkit --help | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_foreign_text_is_made_visible() -> None:
    assert visible("a\tb\nc\x1b[0m\x9b\u202e\ud800é模") == "a\tb\nc\\x1b[0m\\x9b\\u202e\\ud800é模"
    assert one_line("a\nb\tc", 0) == "a\\nb c" and one_line("abcdef", 4) == "abc…"


def test_ascii_streams_do_not_break_the_report(bench) -> None:
    bench.run()
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "evalkit", "show", bench.result["run"]], env=environment, capture_output=True
    )
    assert done.returncode == 0 and b"accuracy" in done.stdout and not done.stderr
    assert json.loads((Path(bench.result["run"]) / "summary.json").read_text())


def _commands(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _commands(below, (*path, name))


def test_every_command_has_an_example() -> None:
    """A line of the help that can be typed, of the command itself; a group may show one of its commands."""
    lacking = []
    for path, command in _commands(cli, ("evalkit",)):
        lines = [line.strip() for line in (command.help or "").splitlines()]
        if not any(line.startswith(" ".join(path)) for line in lines):
            lacking.append(" ".join(path))
    assert lacking == []


def test_the_list_of_tasks_fits_a_terminal_and_says_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["list", "tasks"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    unwrapped = " ".join(out.split())
    for name, factory in registry.tasks().items():
        assert f"\n{name} " in f"\n{out}" and factory.about and factory.about in unwrapped


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gen", "max_tokens=5"], "--gen max_tokens: no such setting (nearest: max_new_tokens"),
        (["--gen", "top-pp=1"], "--gen top_pp: no such setting (nearest: top_p"),
    ],
)
@pytest.mark.parametrize("model", ["mini-internvl-tiny", "predictions:answers.jsonl", "openai:m"])
def test_an_unknown_setting_names_the_nearest(
    model: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place = ["-t", "drivelm", "--split", "miniature", "-o", str(tmp_path)]
    place += ["--base-url", "http://127.0.0.1:9/v1"] if model.startswith("openai") else []
    assert invoke(["run", "-m", model, *place, *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("spec", ["./nofolder", "no/such/folder", "~/nofolder", "/no/folder", "..\\folder"])
def test_a_missing_folder_is_no_unknown_model(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "-m", spec, "-t", "drivelm", "--split", "miniature"]) == 3
    said = capsys.readouterr().err
    assert "no such folder" in said and "unknown model" not in said


def test_a_file_in_place_of_a_folder_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert (
        invoke(["run", "-m", str(tmp_path / "model.safetensors"), "-t", "drivelm", "--split", "miniature"])
        == 3
    )
    assert "is a file, not a folder" in capsys.readouterr().err
