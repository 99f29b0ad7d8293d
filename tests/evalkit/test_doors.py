"""Hostile files of every kind: one line that names the file, never an error of evalkit's own."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from evalkit.cli.main import invoke
from evalkit.installation import install_command
from evalkit.pipeline.job import make_job
from evalkit.pipeline.options import RunOptions
from mini_internvl.releases import TINY_FOLDER
from mini_internvl.weights import write_weights

DEEP = 5_000
DIGITS = "7" * 5_000
OWN_FAULT = "an error in evalkit"
ONE_QUESTION = ("-t", "chartqa", "--split", "miniature", "--limit", "1")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What a command says of a file it does not take."""
    status = invoke([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    said = out + err
    assert status in (2, 3, 4), said
    assert OWN_FAULT not in said and "Traceback" not in said, said
    return said


def few(cases: Sequence[Any], fast: int) -> list[Any]:
    """The first `fast` cases as they are; each of the others takes a command, and is marked slow."""
    return [*cases[:fast], *(pytest.param(*_tuple(case), marks=pytest.mark.slow) for case in cases[fast:])]


def _tuple(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)


# Settings files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * DEEP + "]" * DEEP,
        f"alpha = {DIGITS}",
        'baseline = 3\ntasks = ["chartqa"]',
        'baseline = "b"\ntasks = [["chartqa"]]',
        'baseline = "b"\ntasks = ["chartqa"]\nrun = 5',
        'baseline = "b"\ntasks = ["chartqa"]\nmargin = [1979-05-27]',
        'baseline = "b"\ntasks = ["chartqa"]\nalpha = nan',
        f'baseline = "b"\ntasks = ["chartqa"]\n[max_drop]\n"*" = {"9" * 400}',
        "\x00",
        "a.b = 1\na = 2",
    ],
)
def test_policies(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evalkit.toml"
    path.write_text(text, encoding="utf-8")
    assert "evalkit.toml" in refused(capsys, "check", "-m", "mini-internvl-tiny", "--policy", path)


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * DEEP + "]" * DEEP,
        f"steps: {{max_steps: {DIGITS}}}",
        "seed: 2001-99-99",
        "? [a]\n: b",
        "a: &x [*x]\nb: *x",
        "!!python/object/apply:os.system [ls]",
        "name: 1\nmodel: [2]",
        "optimizer: {lr: 1e400}",
        "\x00",
    ],
)
def test_recipes(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    for arguments in (("train", path), ("train", "plan", path)):
        assert "recipe.yaml" in refused(capsys, *arguments)


# Benchmark files and predictions ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[" * DEEP + "]" * DEEP,
        f'[{{"imgname": "a.png", "query": "q", "label": {DIGITS}}}]',
        f'[{{"imgname": "a.png", "query": "q", "label": {"9" * 400}}}]',
        "[5, [6]]",
        '{"imgname": 1}',
        '[{"imgname": ["a"], "query": {}, "label": NaN}]',
        '[{"imgname": ["a"], "query": {"b": 1}, "label": []}]',
        "\x00",
    ],
)
def test_benchmark_files(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("test_human.json", "test_augmented.json"):
        (tmp_path / "test").mkdir(exist_ok=True)
        (tmp_path / "test" / name).write_text(text, encoding="utf-8")
    assert "test_human.json" in refused(capsys, "data", "check", "chartqa", "--data-root", tmp_path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b'{"id": "x", "text": ' + b"[" * DEEP + b"]" * DEEP + b"}"),
        ("a.jsonl", f'{{"id": "x", "text": {DIGITS}}}'.encode()),
        ("a.json", b"[" * DEEP + b"]" * DEEP),
        ("a.csv", b"id,text\n\x00,\xff"),
        ("a.csv", b'id,text\n"a,b'),
        ("a.parquet", b"PAR1" + bytes(40) + b"PAR1"),
        ("a.xlsx", b"PK\x03\x04" + bytes(60)),
    ],
)
def test_predictions(name: str, data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    asked = ("run", "-m", f"predictions:{path}", "-t", "chartqa", "--split", "miniature", "-o", tmp_path)
    assert name in refused(capsys, *asked)


# Archives -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_damaged_members(method: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "downloads"
    source.mkdir()
    with zipfile.ZipFile(source / "x.zip", "w", method) as file:
        file.writestr("test/test_human.json", json.dumps(list(range(5_000))))
    data = bytearray((source / "x.zip").read_bytes())
    data[80:200] = bytes(120)
    (source / "x.zip").write_bytes(data)
    said = refused(capsys, "data", "prepare", "chartqa", "--from", source, "--data-root", tmp_path / "d")
    assert "x.zip: cannot be unpacked" in said


def test_a_full_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("PIL.Image.Image.save", full)
    said = refused(capsys, "data", "check", "chartqa", "--split", "miniature")
    assert "No space left on device" in said and "EVALKIT_CACHE" in said
    assert not list((tmp_path / "cache").rglob("*.json"))


# Run folders --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of stored predictions."""
    folder = tmp_path_factory.mktemp("real")
    job = make_job("chartqa", RunOptions("", split="miniature", limit=4))
    rows = [{"id": sample.id, "text": "1"} for sample in job.samples]
    (folder / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    asked = ["run", "-m", f"predictions:{folder / 'a.json'}", "-t", "chartqa", "--split", "miniature"]
    assert invoke([*asked, "--limit", "4", "-o", str(folder / "runs")]) == 0
    (manifest,) = (folder / "runs").rglob("manifest.json")
    return manifest.parent


COMMANDS = (
    ("show",),
    ("show", "--wrong"),
    ("score",),
    ("reproduce",),
    ("compare", "RUN"),
    ("export", "chartqa"),
    ("list", "runs"),
    ("history",),
    ("baseline", "set", "b"),
)

TEXTS = {
    "manifest.json": [
        '{"a": NaN}',
        '{"a": 1e999}',
        "[" * DEEP,
        '{"task": 5}',
        '{"task": {"name": ["x"]}, "model": {"name": {}}}',
        '{"format": 1, "task": {}, "model": {}, "sessions": 3}',
        '{"selection": {"expected": "many"}, "includes": [4]}',
        f'{{"created": {DIGITS}}}',
        "null",
        "",
    ],
    "summary.json": [
        '{"counts": 5}',
        '{"status": "complete", "counts": {"expected": []}, "metrics": {"a": 3}}',
        '{"metrics": {"average": {"value": "high", "n": 3}}}',
        '{"metrics": {"average": {"value": NaN, "n": 3}}}',
        '{"groups": {"a": {"b": {"c": 4}}}}',
        "[" * DEEP,
        "[]",
    ],
    "records.parquet": ["PAR1", "", "\x00" * 100],
}


CASES = [(name, text) for number in range(10) for name, texts in TEXTS.items() for text in texts[number:][:1]]


@pytest.mark.parametrize(("name", "text"), few(CASES, 6))
def test_run_folders(
    name: str,
    text: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "m" / "t@s" / "r"
    shutil.copytree(run, folder)
    (folder / name).write_text(text, encoding="utf-8")
    for command, *rest in COMMANDS:
        arguments = [command, *(str(run) if part == "RUN" else part for part in rest)]
        if command in ("list", "history"):
            arguments += ["-o", str(tmp_path / "runs")]
        else:
            arguments.append(str(folder))
        invoke(arguments)
        out, err = capsys.readouterr()
        assert OWN_FAULT not in err and "Traceback" not in err, (arguments, err)
        if command == "show" and not (name == "records.parquet" and not rest):
            assert name in err or "run folder" in err, (arguments, out, err)


# Checkpoints --------------------------------------------------------------------------------------------


def changed(folder: Path, **changes: Any) -> None:
    """Change members of `config.json`; `llm_config__x` is one of its part."""
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        *parts, last = name.split("__")
        target = content
        for part in parts:
            target = target[part]
        target[last] = value
    path.write_text(json.dumps(content), encoding="utf-8")


def assert_run_names_its_fault(folder: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run of a checkpoint never ends as a fault of evalkit's own."""
    asked = ["run", "-m", str(folder), "-t", "chartqa", "--split", "miniature", "--limit", "1"]
    invoke([*asked, "-o", str(output)])
    said = capsys.readouterr().err
    assert OWN_FAULT not in said and "Traceback" not in said, said


@pytest.mark.parametrize(
    "changes",
    few(
        [
            {"llm_config__num_hidden_layers": 1e12},
            {"llm_config__num_hidden_layers": 10**12},
            {"vision_config__num_hidden_layers": 10**12},
            {"llm_config__num_hidden_layers": "2"},
            {"llm_config__vocab_size": -1},
            {"llm_config__hidden_size": [64]},
            {"llm_config__rms_norm_eps": "small"},
            {"llm_config__rope_theta": {"a": 1}},
            {"llm_config__rope_scaling": 5},
            {"llm_config": 7},
            {"vision_config__image_size": {}},
            {"vision_config__hidden_size": None},
            {"vision_config__layer_norm_eps": float("nan")},
            {"downsample_ratio": "half"},
            {"downsample_ratio": 0},
            {"select_layer": "last"},
            {"select_layer": 10**6},
            {"template": 5},
            {"template": ["a"]},
            {"system_message": {"a": 1}},
            {"max_dynamic_patch": "twelve"},
            {"image_token_id": "x"},
            {"model_type": ["internvl_chat"]},
            {"architectures": 5, "llm_config__model_type": None},
        ],
        5,
    ),
)
def test_settings_of_checkpoints(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(TINY_FOLDER, folder)
    changed(folder, **changes)
    assert_run_names_its_fault(folder, tmp_path, capsys)


@pytest.mark.parametrize(
    ("name", "data"),
    few(
        [
            ("config.json", b"[" * DEEP),
            ("config.json", b'{"model_type": "internvl_chat", "x": ' + DIGITS.encode() + b"}"),
            ("config.json", b'{"a": 1, "a": 2}'),
            ("config.json", b"\xff\xfe"),
            ("model.safetensors", b""),
            ("model.safetensors", b"\x02\x00\x00\x00\x00\x00\x00\x00{}"),
            ("model.safetensors", b"\xff" * 40),
            ("model.safetensors.index.json", b"[" * DEEP),
            ("model.safetensors.index.json", b'{"weight_map": {"a": 5}}'),
            ("tokenizer_config.json", b"[" * DEEP),
            ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": 5}}'),
            ("tokenizer.json", b"[" * DEEP),
            ("tokenizer.json", b'{"model": {"vocab": 5}}'),
            ("vocab.json", b'{"a": "b"}'),
            ("merges.txt", b"\xff\xff"),
            ("conversation.py", b"x = " + b"(" * DEEP),
        ],
        5,
    ),
)
def test_files_of_checkpoints(
    name: str, data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(TINY_FOLDER, folder)
    if name.endswith("index.json"):
        for path in folder.glob("*.safetensors"):
            path.unlink()
    (folder / name).write_bytes(data)
    assert_run_names_its_fault(folder, tmp_path, capsys)


def test_an_empty_header_and_absurd_depths_are_named(tmp_path: Path) -> None:
    import mini_internvl

    folder = tmp_path / "model"
    shutil.copytree(TINY_FOLDER, folder)
    save_file({}, folder / "model.safetensors")
    with pytest.raises(mini_internvl.CheckpointError, match=r"model\.safetensors: holds no tensors"):
        mini_internvl.load(folder)
    changed(folder, llm_config__num_hidden_layers=1e12)
    with pytest.raises(mini_internvl.ConfigError, match="num_hidden_layers is 1000000000000"):
        mini_internvl.load(folder)


def test_a_full_disk_while_weights_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mini_internvl import CheckpointError, MiniInternVLConfig
    from mini_internvl_train.checkpoints import save_tensors
    from mini_internvl_train.errors import TrainingError
    from mini_internvl_train.peft_format import write_peft
    from mini_internvl_train.recipe import Lora

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("mini_internvl.weights.save_file", full)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be written .*No space left"):
        write_weights({"a": torch.zeros(3)}, tmp_path, 1_000)
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(TrainingError, match=r"optimizer\.safetensors: cannot be written .*No space left"):
        save_tensors({"a": torch.zeros(3)}, tmp_path / "optimizer.safetensors")
    config = cast(MiniInternVLConfig, SimpleNamespace(family="qwen2"))
    with pytest.raises(TrainingError, match=r"adapter_model\.safetensors: cannot be written .*No space left"):
        write_peft(tmp_path, {}, config, Lora(8), {"model": "m", "fingerprint": "f"}, native=False)


def test_a_package_that_is_missing_is_named_with_its_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'accelerate'", name="accelerate")

    monkeypatch.setattr("evalkit.registry.model", missing)
    said = refused(capsys, "run", "-m", "mini-internvl-tiny", "-t", "chartqa", "--split", "miniature")
    assert f"needs the package accelerate: {install_command('train')}" in said


@pytest.mark.parametrize(
    ("task", "answer"), [("chartqa", "\u22125"), ("mathvista", "about \u22123.5"), ("mmmu", "\uff0d2")]
)
def test_a_minus_sign_that_no_rule_reads_is_said(
    task: str, answer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = make_job(task, RunOptions("", split="miniature", limit=2)).samples
    rows = [{"id": sample.id, "text": answer} for sample in samples]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    asked = ["run", "-m", f"predictions:{tmp_path / 'a.json'}", "-t", task, "--split", "miniature"]
    assert invoke([*asked, "--limit", "2", "-o", str(tmp_path / "runs"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert any("2 of 2 answers write a negative number with another sign" in note for note in found["notes"])
