"""The three examples of docs/task-examples.md run as shown and give known values."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evalkit import registry
from evalkit.cli.main import invoke
from evalkit.errors import DataError
from evalkit.files import read_csv

PAGE = Path(__file__).resolve().parents[2] / "docs" / "task-examples.md"
Run = Callable[[str, dict[str, str]], dict[str, Any]]


def example(name: str) -> str:
    """The code of the class `name`."""
    page = PAGE.read_text(encoding="utf-8")
    (found,) = [
        code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if f"class {name}(" in code
    ]
    return str(found)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setattr(registry, "_included", {})
    for number in range(4):
        Image.new("RGB", (200, 100), (number * 40, 0, 0)).save(tmp_path / f"{number}.png")

    def call(name: str, answers: dict[str, str]) -> dict[str, Any]:
        file, given = tmp_path / f"{name.lower()}.py", tmp_path / "answers.jsonl"
        file.write_text(example(name))
        given.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in answers.items()))
        command = ["run", "--include", str(file), "-m", f"predictions:{given}", "-t", name.lower(), "--json"]
        assert invoke([*command, "--data-root", str(tmp_path), "-o", str(tmp_path / "runs")]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)["runs"][0]
        return found

    return call


def signs(folder: Path, *answers: str) -> None:
    with (folder / "test.csv").open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file)
        table.writerow(["id", "image", "question", "A", "B", "C", "D", "answer"])
        for number, answer in enumerate(answers):
            table.writerow(
                [f"s{number}", f"{number}.png", "What, if\nany?", "stop", "yield, please", "", "", answer]
            )


def test_multiple_choice_from_a_csv(run: Run, tmp_path: Path) -> None:
    signs(tmp_path, "A", "B", "A", "CC")
    found = run("Signs", {"s0": "A", "s1": "The answer is (B).", "s2": "yield, please", "s3": "hm"})
    assert found["metrics"]["accuracy"]["value"] == 50
    assert found["counts"]["unparsed"] == 1 and found["counts"]["impossible_keys"] == 1


def test_captions_with_several_references(run: Run, tmp_path: Path) -> None:
    said = [
        "A red car stands by the road .",
        "Two boats are in the harbour .",
        "A dog runs on the wide beach .",
    ]
    rows = [
        {"id": number, "image": f"{number}.png", "captions": ["Something else entirely here .", text]}
        for number, text in enumerate(said)
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = run("Scenes", {str(number): text for number, text in enumerate(said)})
    values = {name: metric["value"] for name, metric in found["metrics"].items()}
    assert values["bleu_4"] == pytest.approx(100, abs=1e-6) and values["rouge_l"] == pytest.approx(100)
    assert 0 < values["cider"] < 1000
    other = run("Scenes", {str(number): said[(number + 1) % 3] for number in range(3)})
    assert other["metrics"]["bleu_4"]["value"] < 20


def test_boxes(run: Run, tmp_path: Path) -> None:
    rows = [
        {"image": f"{number}.png", "size": [200, 100], "expression": "the car", "box": [20, 10, 100, 60]}
        for number in range(4)
    ]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    texts = ["[[100, 100, 500, 600]]", "<box>[[100, 100, 300, 600]]</box>", "[0.1, 0.1, 0.2, 0.2]", "there"]
    found = run("Vehicles", dict(zip("0123", texts, strict=True)))
    assert found["metrics"]["acc_0.5"]["value"] == 50  # whole, and half of it: 0.5 is enough
    assert found["metrics"]["mean_iou"]["value"] == pytest.approx((100 + 50 + 100 * 200 / 4000) / 4)
    assert found["counts"]["unparsed"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"id,image\n1,2\n", "line 1: column 'answer' missing"),
        (b"id,id,answer\n1,2,3\n", "line 1: column 'id' occurs twice"),
        (b"id,answer\n1\n", "line 2: 1 cells, the header has 2"),
        (b'id,answer\n1,"open\n', "broken table"),
        (b"id,answer\n1,\xff\n", "not UTF-8"),
        (b"", "empty file"),
    ],
)
def test_broken_tables(text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(DataError, match=message):
        list(read_csv(tmp_path / "t.csv", ("answer",)))
