"""docs/training.md: its page on one's own data runs as it stands, with the embedded model."""

from __future__ import annotations

import json
import random
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from evalkit.cli.main import invoke
from mini_internvl_train.recipe import packaged

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', PAGE, re.DOTALL))
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 180, 30)}


def write_own_data(folder: Path) -> None:
    """Pictures and lines of the page's form, more of them."""
    rng = random.Random(0)
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    train, test = (json.loads(FILES[f"mine/{part}.jsonl"].splitlines()[0]) for part in ("train", "test"))
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for number in range(1, 13):
        colour = rng.choice(list(COLOURS))
        for part, start in (("train", 0), ("test", 100)):
            name = f"{start + number:04d}.png"
            Image.new("RGB", (64, 64), COLOURS[colour]).save(pictures / name)
            if part == "train":
                turns = [train["conversations"][0], {"from": "gpt", "value": colour}]
                lines[part].append(json.dumps({"id": number, "image": name, "conversations": turns}))
            else:
                row = {**test, "id": number, "image": f"pictures/{name}", "answer": colour}
                lines[part].append(json.dumps(row))
    for part, content in lines.items():
        (folder / f"{part}.jsonl").write_text("\n".join(content) + "\n")


@pytest.mark.slow
def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_own_data(tmp_path / "mine")
    for name in ("mine/meta.json", "mine.yaml", "mine.py"):
        Path(name).write_text(FILES[name])
    commands = re.search(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    assert commands is not None
    lines = commands.group(1).strip().splitlines()
    assert len(lines) == 6
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "evalkit"
        assert invoke(arguments) == 0, f"{line}\n{capsys.readouterr().err}"
    text = capsys.readouterr().out
    assert "PASS" in text
    assert "step-0000" in text
    assert Path("checkpoints/mine/final/model.safetensors").is_file()


def test_named_recipes_exist() -> None:
    for kind in ("drivelm", "bdd-x", "medical", "remote-sensing", "lora", "frozen-vit", "stage1", "stage2"):
        assert f"`{kind}-`" in PAGE
        assert {f"{kind}-{size}" for size in ("1b", "2b", "4b")} <= packaged().keys()
