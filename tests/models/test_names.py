"""Short names, hub ids and what happens without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mini_internvl import releases
from mini_internvl.errors import CheckpointError
from mini_internvl.releases import PATTERNS, RELEASES, TINY_FOLDER, find_release, locate, release_of_folder


def test_every_release_is_there() -> None:
    assert len(RELEASES) == 1 + 3 + 2 + 12 + 6 + 8 + 15
    expected = {
        "mini-internvl-1b": "OpenGVLab/InternVL2-1B",
        "mini-internvl-4b": "OpenGVLab/InternVL2-4B",
        "mini-internvl-chat-2b-v1-5": "OpenGVLab/Mini-InternVL-Chat-2B-V1-5",
        "mini-internvl-2b-da-drivelm": "OpenGVLab/Mini-InternVL2-2B-DA-DriveLM",
        "mini-internvl-1b-da-bdd": "OpenGVLab/Mini-InternVL2-1B-DA-BDD",
        "mini-internvl-4b-da-rs": "OpenGVLab/Mini-InternVL2-4B-DA-RS",
        "mini-internvl-2b-da-medical": "OpenGVLab/Mini-InternVL2-2B-DA-Medical",
        "internvl2.5-1b": "OpenGVLab/InternVL2_5-1B",
        "internvl2.5-4b-mpo": "OpenGVLab/InternVL2_5-4B-MPO",
        "internvl3-2b-instruct": "OpenGVLab/InternVL3-2B-Instruct",
        "internvl3-1b-hf": "OpenGVLab/InternVL3-1B-hf",
        "internvl3.5-1b": "OpenGVLab/InternVL3_5-1B",
        "internvl3.5-2b-pretrained": "OpenGVLab/InternVL3_5-2B-Pretrained",
        "internvl3.5-4b-hf": "OpenGVLab/InternVL3_5-4B-HF",
    }
    assert {name: RELEASES[name].hub_id for name in expected} == expected


@pytest.mark.parametrize(
    "name",
    ["mini-internvl2-2b-da-drivelm", "Mini-InternVL-2B-DA-DriveLM", "opengvlab/mini-internvl2-2b-da-drivelm"],
)
def test_spellings(name: str) -> None:
    release = find_release(name)
    assert release is not None and release.name == "mini-internvl-2b-da-drivelm"


@pytest.mark.parametrize(
    "name", ["internvl3.5-1b", "InternVL3_5-1B", "InternVL3.5-1B", "opengvlab/internvl3_5-1b"]
)
def test_spellings_of_successors(name: str) -> None:
    release = find_release(name)
    assert release is not None and release.hub_id == "OpenGVLab/InternVL3_5-1B"
    assert find_release("internvl3-4b") is None


def test_a_folder_named_as_its_repository() -> None:
    release = release_of_folder(Path("/data/Mini-InternVL-Chat-4B-V1-5"))
    assert release is not None and release.system_message == "You are an AI assistant whose name is Phi-3."
    assert release_of_folder(Path("/data/mine")) is None


def test_folders_and_the_embedded_model_need_no_network(tmp_path: Path) -> None:
    assert locate(tmp_path) == tmp_path
    assert locate("mini-internvl-tiny") == TINY_FOLDER


def test_near_names_are_suggested() -> None:
    with pytest.raises(CheckpointError, match="did you mean mini-internvl-2b"):
        locate("mini-internvl-2bb")
    with pytest.raises(CheckpointError, match="give a folder, a hub id or a known name"):
        locate("/no/such/folder")


def test_a_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a file"):
        locate(path)


def test_offline_is_respected_and_says_what_to_do(tmp_path: Path) -> None:
    program = (
        "from mini_internvl.releases import locate\n"
        "from mini_internvl.errors import CheckpointError\n"
        "try:\n    locate('mini-internvl-1b', revision='abc')\n"
        "except CheckpointError as error:\n    print(error)\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "OpenGVLab/InternVL2-1B@abc: not in the local cache" in done.stdout
    assert "hf download OpenGVLab/InternVL2-1B" in done.stdout


def test_a_hub_id_is_used_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(releases, "_fetch", lambda hub_id, revision: asked.append(hub_id) or Path())
    locate("OpenGVLab/Mini-InternVL2-1B-DA-Drivelm")
    locate("mini-internvl-1b-da-drivelm")
    assert asked == ["OpenGVLab/Mini-InternVL2-1B-DA-Drivelm", "OpenGVLab/Mini-InternVL2-1B-DA-DriveLM"]


def test_the_cache_is_used_offline(tmp_path: Path) -> None:
    """A revision already in huggingface_hub's cache is found without a network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--OpenGVLab--InternVL2-1B"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}", encoding="utf-8")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit, encoding="utf-8")
    program = "from mini_internvl.releases import locate; print(locate('mini-internvl-1b'))"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == str(snapshot)


def test_code_is_never_fetched() -> None:
    assert [p for p in PATTERNS if p.endswith(("py", "bin", "pt"))] == ["conversation.py"]
    assert "chat_template.jinja" in PATTERNS  # by which a native repository is asked


def test_listing_names_imports_nothing_heavy() -> None:
    program = (
        "import sys, evalkit, mini_internvl\nassert mini_internvl.RELEASES\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'PIL', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
