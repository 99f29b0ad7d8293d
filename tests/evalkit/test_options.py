"""A run's options stand in one place: what is made from them, and that one more is found everywhere."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

import evalkit
from evalkit.cli.run import run as run_command
from evalkit.comparison.policy import load as load_policy
from evalkit.errors import UsageError
from evalkit.pipeline.options import RunKeywords, RunOptions, RunSettings, options_of
from tests.option_tables import DOCS, PAGES, with_tables

REPOSITORY = Path(__file__).resolve().parents[2]

#: Looks for the option `contrast` (default 7) in every place; prints what it finds.
LOOK = """
import inspect, json, sys
from pathlib import Path
import evalkit
from evalkit.cli.main import invoke
from evalkit.comparison.policy import load
from evalkit.pipeline.job import make_job
from evalkit.pipeline.manifest import stored_options
from evalkit.pipeline.options import RunOptions
from mini_internvl_train.recipe import Evaluation
from mini_internvl_train.settings import read_settings
from tests.option_tables import run_tables

folder = Path(sys.argv[1])
assert Path(evalkit.__file__).is_relative_to(folder), evalkit.__file__
(folder / "p.toml").write_text('baseline = "b"\\ntasks = ["chartqa"]\\n[run]\\ncontrast = 3\\n')
(folder / "e.yaml").write_text("tasks: [chartqa]\\ncontrast: 4\\n")
sample = make_job("chartqa", RunOptions("", split="miniature", limit=1)).samples[0].id
(folder / "answers.jsonl").write_text(json.dumps({"id": sample, "prediction": "1"}))
asked = ["-m", f"predictions:{folder / 'answers.jsonl'}", "-t", "chartqa", "--split", "miniature"]
invoke(["run", *asked, "--limit", "1", "-o", str(folder / "runs"), "--json"])
(manifest,) = (folder / "runs").rglob("manifest.json")
content = json.loads(manifest.read_text())
found = {
    "keyword": inspect.signature(evalkit.run).parameters["contrast"].default,
    "help": "contrast: How much contrast." in evalkit.run.__doc__,
    "policy": load(folder / "p.toml").run["contrast"],
    "recipe": read_settings(Evaluation, folder / "e.yaml", {}).contrast,
    "manifest": content["settings"]["contrast"],
    "reproduce": stored_options(content, manifest.parent, None, False)[1].contrast,
    "documentation": "| `--contrast N` | `7` | How much contrast. | yes |" in run_tables()["question"],
}
(folder / "found.json").write_text(json.dumps(found))
invoke(["run", "--help"])
"""


def with_entry(folder: Path, module: str, place: str, entry: str) -> dict[str, str]:
    """A copy of evalkit with one more option before `place`; returns the environment that imports it."""
    shutil.copytree(REPOSITORY / "evalkit", folder / "evalkit", ignore=shutil.ignore_patterns("__pycache__"))
    source = folder / "evalkit/pipeline" / module
    text = source.read_text(encoding="utf-8")
    assert text.count(place) == 1
    source.write_text(text.replace(place, entry + place), encoding="utf-8")
    path = os.pathsep.join([str(folder), str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}


def looked_for(program: str, folder: Path, environment: dict[str, str]) -> tuple[Any, str]:
    """What a program finds in the copy, and what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env=environment,
        cwd=folder,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text()), done.stdout


def test_one_more_option_is_found_everywhere(tmp_path: Path) -> None:
    entry = '    contrast: int = option("question", 7, "How much contrast.", metavar="N")\n'
    environment = with_entry(tmp_path, "options.py", "    split: str | None = option(", entry)
    found, out = looked_for(LOOK, tmp_path, {**environment, "EVALKIT_CONTRAST": "5"})
    assert found == {
        "keyword": 7,
        "help": True,
        "policy": 3,
        "recipe": 4,
        "manifest": 5,
        "reproduce": 5,
        "documentation": True,
    }
    assert "--contrast N" in out and "How much contrast." in out


#: Looks for the option `patience` of a comparison (default 7) in every place; prints what it finds.
LOOK_AT_COMPARISON = """
import inspect, json, sys
from pathlib import Path
import evalkit
from evalkit.cli.main import invoke
from evalkit.comparison.policy import load
from tests.option_tables import comparison_table

folder = Path(sys.argv[1])
assert Path(evalkit.__file__).is_relative_to(folder), evalkit.__file__
(folder / "p.toml").write_text('baseline = "b"\\ntasks = ["chartqa"]\\npatience = 3\\n')
found = {
    "keyword": inspect.signature(evalkit.compare).parameters["patience"].default,
    "help": "patience: How much patience." in evalkit.compare.__doc__,
    "policy": load(folder / "p.toml").options.patience,
    "documentation": "| `--patience N` | `7` | How much patience. |" in comparison_table()["comparison"],
}
(folder / "found.json").write_text(json.dumps(found))
invoke(["compare", "--help"])
invoke(["check", "--help"])
"""


def test_one_more_option_of_a_comparison_is_found_everywhere(tmp_path: Path) -> None:
    entry = '    patience: int = option("call", 7, "How much patience.", metavar="N")\n'
    environment = with_entry(tmp_path, "comparison_options.py", "    alpha: float = option(", entry)
    found, out = looked_for(LOOK_AT_COMPARISON, tmp_path, environment)
    assert found == {"keyword": 7, "help": True, "policy": 3, "documentation": True}
    assert out.count("--patience N") == 2


def test_flags_keywords_and_options_are_the_same() -> None:
    names = {entry.name for entry in options_of(RunKeywords).values() if entry.option.flag}
    flags = {parameter.name for parameter in run_command.params if isinstance(parameter, click.Option)}
    assert names <= flags
    keywords = set(inspect.signature(evalkit.run).parameters)
    assert keywords == {*options_of(RunKeywords), "model", "task", "include"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_of_the_documentation_are_those_of_the_options(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == with_tables(text, PAGES[page]()), "run `python -m tests.option_tables`"


def test_every_option_is_explained_in_a_line() -> None:
    for name, entry in options_of(RunOptions).items():
        assert entry.option.help.endswith((".", ")")) and len(entry.option.help) < 120, name
    assert DOCS.is_dir()


@pytest.mark.parametrize("name", ["prefix_caching", "sharing", "prefix-caching"])
def test_an_earlier_name_of_an_option_is_taken(name: str, tmp_path: Path) -> None:
    path = tmp_path / "evalkit.toml"
    path.write_text(f'baseline = "b"\ntasks = ["chartqa"]\n[run]\n{name} = false\n')
    assert load_policy(path).run == {"prefix_caching": False}


@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        ({}, ["--no-prefix-caching"]),
        ({}, ["--no-sharing"]),
        ({}, ["--no_sharing"]),
        ({"EVALKIT_NO_SHARING": "1"}, []),
        ({"EVALKIT_SHARING": "false"}, []),
        ({"EVALKIT_PREFIX_CACHING": "0"}, []),
        ({"EVALKIT_NO_PREFIX_CACHING": "yes"}, []),
    ],
)
def test_spellings_of_a_switch(
    environment: dict[str, str], arguments: list[str], bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert bench.run(*arguments) == 0
    assert bench.family.options.prefix_caching is False and bench.family.options.sharing is False


def test_an_earlier_name_is_not_in_the_help(bench: Any) -> None:
    assert bench.cli("run", "--help") == 0
    assert "--no-prefix-caching" in bench.out and "--no-sharing" not in bench.out


def test_keywords_of_python(bench: Any) -> None:
    given: dict[str, Any] = {
        "data_root": bench.folder,
        "output": bench.output,
        "quiet": True,
        "include": bench.task,
    }
    evalkit.run(bench.model, "yes-no", sharing=False, gen={"max_new_tokens": 3}, sample_id="1", **given)
    (path,) = (path.parent for path in bench.output.rglob("manifest.json"))
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["settings"]["gen"] == ["max_new_tokens=3"]
    assert manifest["settings"]["sample_id"] == manifest["selection"]["sample_ids"] == ["1"]
    assert manifest["sessions"][0]["sharing"] is False and manifest["sessions"][0]["batch_size"] is None
    with pytest.raises(TypeError, match="contrast"):
        evalkit.run(bench.model, "yes-no", contrast=3, **given)
    with pytest.raises(UsageError, match="--batch-size x"):
        evalkit.run(bench.model, "yes-no", batch_size="x", **given)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"batch_size": "many"}, "--batch-size many: give a positive number, or auto"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"engine": "remote"}, "--engine remote: there are local, ray"),
        ({"max_tiles": 0}, "--max-tiles 0"),
        ({"limit": 0}, "--limit 0"),
        ({"cpus_per_worker": 0}, "--cpus-per-worker 0"),
        ({"worker_timeout": 0.0}, "--worker-timeout 0"),
        ({"judge": "http://x/v1"}, "belong together"),
    ],
)
def test_values_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    for options in (RunSettings(**wrong), RunOptions("m", **wrong)):
        with pytest.raises(UsageError, match=said):
            options.check()


def test_addresses_are_stored_without_passwords() -> None:
    from evalkit.pipeline.options import stored

    options = RunOptions("m", base_url="http://me:secret@host/v1")
    assert stored(options, "place")["base_url"] == "http://host/v1"
