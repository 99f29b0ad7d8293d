"""docs/comparing.md shows what really comes out: two prediction files over a real sample, and the gate."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.cli.main import invoke
from evalkit.comparison.policy import find, load

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "comparing.md").read_text(encoding="utf-8")


def block(start: str, page: str = PAGE) -> str:
    """The fenced block that begins with a line."""
    found = re.search(rf"^```[^\n]*\n({re.escape(start)}.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert found is not None, start
    return found.group(1)


@pytest.mark.parametrize(("name", "status"), [("tuned", 0), ("broken", 1)])
def test_the_page_shows_real_output(
    name: str,
    status: int,
    shared_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = str(shared_dir / "data" / "rsvqa-lr")
    monkeypatch.chdir(tmp_path)
    Path("answers.py").write_text(block("import json, sys, zlib"), encoding="utf-8")
    for model, share in re.findall(r"^python answers.py \$D (\w+) ([\d.]+)", PAGE, re.MULTILINE):
        subprocess.run([sys.executable, "answers.py", data, model, share], check=True)
        if model in ("base", name):
            run = ["run", "-m", f"predictions:{model}.jsonl", "-t", "rsvqa-lr", "--data-root", data, "-q"]
            assert invoke(run) == 0
    capsys.readouterr()
    command = f"compare predictions:base.jsonl predictions:{name}.jsonl --max-drop average=2"
    assert invoke([*command.split(), "-q"]) == status
    shown = block(f"$ evalkit {command}").partition("\n")[2]
    assert capsys.readouterr().out == shown


def test_the_policy_of_the_page_can_be_read(tmp_path: Path) -> None:
    page = (DOCS / "gates.md").read_text(encoding="utf-8")
    (tmp_path / "evalkit.toml").write_text(block("# evalkit.toml", page), encoding="utf-8")
    policy = load(find(tmp_path))
    assert policy.options.margins == {"rsvqa-lr:average": 1.0} and policy.run["limit"] == 2000
