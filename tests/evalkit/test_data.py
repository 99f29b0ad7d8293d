"""Finding a task's files: data roots, the hub's copy, the miniature; checking and preparing them."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest
from general_tables import png

from evalkit import registry
from evalkit.cli.main import invoke
from evalkit.data.check import check
from evalkit.data.locate import locate, miniature
from evalkit.data.prepare import prepare
from evalkit.errors import DataError
from evalkit.task import DataSource
from evalkit_tasks.medical.gmai_mmbench import VALIDATION

ITEM = {"questionId": 7, "question": "q", "image": "documents/a.png", "answers": ["x"]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    for variable in ("EVALKIT_DATA", "EVALKIT_DATA_ROOT"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "cache"


def docvqa(root: Path, *items: object) -> Path:
    (root / "val" / "documents").mkdir(parents=True)
    (root / "val" / "documents" / "a.png").write_bytes(png())
    (root / "val" / "val_v1.0.json").write_text(json.dumps({"data": items or [ITEM]}), encoding="utf-8")
    return root


# locate -------------------------------------------------------------------------------------------------


def test_a_data_root_is_the_task_folder_or_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docvqa(tmp_path / "one" / "docvqa")
    docvqa(tmp_path / "two")
    task = registry.task("docvqa")
    assert locate(task, "val", tmp_path / "one") == tmp_path / "one" / "docvqa"
    assert locate(task, "val", tmp_path / "two") == tmp_path / "two"
    monkeypatch.setenv("EVALKIT_DATA", str(tmp_path / "one"))
    assert locate(task, "val") == tmp_path / "one" / "docvqa"
    assert locate(task, "val", tmp_path / "two") == tmp_path / "two"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    task = registry.task("docvqa")
    with pytest.raises(DataError, match="no such folder"):
        locate(task, "val", tmp_path / "none")
    (tmp_path / "root").mkdir()
    with pytest.raises(
        DataError, match=r"lacks val/val_v1.0.json \(from https://rrc.*evalkit data where docvqa"
    ):
        locate(task, "val", tmp_path / "root")
    with pytest.raises(DataError, match=r"put test.json.*into DIR/bdd-x and give --data-root DIR"):
        locate(registry.task("bdd-x"), "test")
    with pytest.raises(DataError, match="or run once without --offline to download lmms-lab/DocVQA"):
        locate(task, "val", offline=True)


def test_pictures_may_be_absent(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "val_v1.0.json").write_text("{}", encoding="utf-8")
    assert locate(registry.task("docvqa"), "val", tmp_path) == tmp_path


# The Hub ------------------------------------------------------------------------------------------------


def test_the_hub_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def snapshot_download(repository: str, *, allow_patterns: list[str], local_dir: Path, **_: object) -> str:
        calls.append((repository, allow_patterns))
        folder = local_dir / "DocVQA"
        folder.mkdir(parents=True)
        row = {"questionId": "7", "question": "q", "answers": ["x"], "image": {"bytes": png(), "path": None}}
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), folder / "validation-0.parquet")
        return str(local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    task = registry.task("docvqa")
    folder = locate(task, "val")
    (sample,) = task.samples("val", folder)
    assert sample.id == "7" and sample.images[0].open().size == (4, 3)
    assert locate(task, "val", offline=True) == folder
    assert calls == [("lmms-lab/DocVQA", ["DocVQA/validation[-_.]*parquet"])]


@pytest.mark.parametrize("outcome", ["error", "nothing"])
def test_a_hub_that_fails(monkeypatch: pytest.MonkeyPatch, outcome: str) -> None:
    def snapshot_download(*_: object, local_dir: Path, **__: object) -> str:
        if outcome == "error":
            raise OSError("no route")
        local_dir.mkdir(parents=True)
        return str(local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    task = registry.task("docvqa")
    with pytest.raises(
        DataError, match="put val/val_v1.*no route" if outcome == "error" else "does not hold Parquet files"
    ):
        locate(task, "val")
    with pytest.raises(DataError, match="without --offline"):
        locate(task, "val", offline=True)


@pytest.mark.parametrize("outcome", ["whole", "error", "nothing"])
def test_files_as_published_from_the_hub(monkeypatch: pytest.MonkeyPatch, outcome: str) -> None:
    def snapshot_download(repository: str, *, allow_patterns: list[str], local_dir: Path, **_: object) -> str:
        assert (repository, allow_patterns) == ("VLMEval/GMAI-MMBench", [VALIDATION])
        if outcome == "error":
            raise OSError("no route")
        local_dir.mkdir(parents=True)
        if outcome == "whole":
            (local_dir / VALIDATION).write_text("", encoding="utf-8")
        return str(local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    task = registry.task("gmai-mmbench")
    if outcome == "whole":
        folder = locate(task, "val")
        assert (folder / VALIDATION).is_file() and locate(task, "val", offline=True) == folder
        return
    with pytest.raises(DataError, match="no route" if outcome == "error" else f"does not hold {VALIDATION}"):
        locate(task, "val")
    with pytest.raises(DataError, match="without --offline"):
        locate(task, "val", offline=True)


# The miniature ------------------------------------------------------------------------------------------


def test_the_miniature_is_drawn_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = registry.task("ai2d")
    folder = locate(task, "miniature")
    assert folder.is_relative_to(cache)
    monkeypatch.setattr(type(task), "data_source", DataSource(draw=lambda _: pytest.fail("drawn again")))
    assert locate(task, "miniature") == folder
    assert locate(task, "miniature", Path("nowhere"), offline=True) == folder


def test_a_miniature_broken_off_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = registry.task("ai2d")

    def draw(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError("broken off")

    with monkeypatch.context() as patch:
        patch.setattr(type(task), "data_source", DataSource(draw=draw))
        with pytest.raises(RuntimeError):
            miniature(task)
    assert not list((cache / "miniature" / "ai2d").iterdir())
    assert (miniature(task) / "AI2D_TEST.tsv").is_file()


def test_two_that_draw_at_once_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    task = registry.task("ai2d")
    source = task.data_source

    def draw_beside(folder: Path) -> None:
        source.draw(folder)
        monkeypatch.setattr(type(task), "data_source", source)
        miniature(task)  # another process is faster

    monkeypatch.setattr(type(task), "data_source", DataSource(draw=draw_beside))
    assert (miniature(task) / "AI2D_TEST.tsv").is_file()


@pytest.mark.parametrize(
    "name",
    ["mmbench", "chartqa", "docvqa", "infovqa", "textvqa", "ai2d", "ocrbench", "mmmu", "mathvista",
     "mme-realworld-driving"],
)  # fmt: skip
def test_every_miniature_is_complete_and_seeded(name: str, tmp_path: Path) -> None:
    task = registry.task(name)
    report = check(task, "miniature", miniature(task))
    assert report.complete, report.problems
    assert report.samples >= 16 and report.images >= 12
    (tmp_path / "again").mkdir()
    task.data_source.draw(tmp_path / "again")
    first = [
        (s.id, s.turns, s.target, s.images[0].digest()) for s in task.samples("miniature", miniature(task))
    ]
    again = [
        (s.id, s.turns, s.target, s.images[0].digest()) for s in task.samples("miniature", tmp_path / "again")
    ]
    assert first == again


# check --------------------------------------------------------------------------------------------------


def test_check_names_the_first_problems(tmp_path: Path) -> None:
    items = [{**ITEM, "questionId": i, "image": f"documents/{i}.png"} for i in range(15)]
    docvqa(tmp_path, ITEM, *[{**item, "questionId": item["questionId"] + 100} for item in items])
    report = check(registry.task("docvqa"), "val", tmp_path)
    assert (report.samples, report.published, report.images) == (16, 5349, 16)
    assert len(report.problems) == 10 and report.more == 6
    assert "sample 100:" in report.problems[0] and "image missing" in report.problems[0]
    assert check(registry.task("docvqa"), "val", tmp_path, images=False).problems == [
        "16 questions, published are 5349"
    ]


def test_check_of_broken_texts(tmp_path: Path) -> None:
    docvqa(tmp_path, ITEM, ITEM)
    assert "id 7 occurs twice" in check(registry.task("docvqa"), "val", tmp_path).problems[0]
    report = check(registry.task("docvqa"), "test", tmp_path)
    assert report.problems[0].startswith("test/test_v1.0.json is missing")


# The command line ---------------------------------------------------------------------------------------


def test_where(capsys: pytest.CaptureFixture[str]) -> None:
    for name in registry.tasks():
        assert invoke(["data", "where", name]) == 0
    text = capsys.readouterr().out
    for expected in ("MMBench_DEV_EN.tsv", "DIR/docvqa/val/val_v1.0.json", "licence", "Hub (lmms-lab/ai2d)"):
        assert expected in text
    assert invoke(["data", "where", "docvqa", "--split", "test", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["splits"][0]["files"][0]["path"] == "test/test_v1.0.json"
    assert invoke(["data", "where", "docvqa", "--split", "nope"]) == 2
    assert invoke(["data", "where", "docvqaa"]) == 2
    assert "nearest: docvqa" in capsys.readouterr().err


def test_check_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docvqa(tmp_path / "docvqa")
    assert invoke(["data", "check", "docvqa", "--data-root", str(tmp_path)]) == 3
    text = capsys.readouterr().out
    assert "docvqa val: 1 problem (" in text and "1 of 5,349 questions, 1 images opened" in text
    assert invoke(["data", "check", "docvqa", "--data-root", str(tmp_path), "--json"]) == 3
    (report,) = json.loads(capsys.readouterr().out)["splits"]
    assert (report["split"], report["complete"], report["questions"]) == ("val", False, 1)
    assert invoke(["data", "check", "ai2d", "--split", "miniature"]) == 0
    assert "complete" in capsys.readouterr().out
    assert invoke(["data", "check", "docvqa"]) == 3
    assert "no data found" in capsys.readouterr().err
    assert invoke(["data", "check", "docvqa", "--split", "test", "--data-root", str(tmp_path)]) == 3
    assert "test/test_v1.0.json is missing" in capsys.readouterr().out


# prepare ------------------------------------------------------------------------------------------------


def zipped(path: Path, **files: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)


def test_prepare_from_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    item = json.dumps([{"imgname": "1.png", "query": "q", "label": "5"}]).encode()
    zipped(
        tmp_path / "raw" / "ChartQA.zip",
        **{
            "ChartQA Dataset/test/test_human.json": item,
            "ChartQA Dataset/test/test_augmented.json": item,
            "ChartQA Dataset/test/png/1.png": png(),
            "ChartQA Dataset/train/train_human.json": item,
        },
    )
    command = [
        "data",
        "prepare",
        "chartqa",
        "--from",
        str(tmp_path / "raw"),
        "--data-root",
        str(tmp_path / "root"),
    ]
    assert invoke(command) == 0
    assert "test: complete" in capsys.readouterr().out
    task = registry.task("chartqa")
    folder = locate(task, "test", tmp_path / "root")
    assert [s.images[0].open().size for s in task.samples("test", folder)] == [(4, 3)] * 2
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert (tmp_path / "raw" / "ChartQA.zip").is_file()
    assert invoke(command) == 0  # again: nothing more to do


def test_prepare_from_loose_files_and_tars(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    docvqa(tmp_path / "made")
    raw.mkdir()
    with tarfile.open(raw / "val.tar.gz", "w:gz") as file:
        file.add(tmp_path / "made" / "val" / "documents", "val/documents")
    (raw / "downloads").mkdir()
    (raw / "downloads" / "val_v1.0.json").write_bytes(
        (tmp_path / "made" / "val" / "val_v1.0.json").read_bytes()
    )
    placed = prepare(registry.task("docvqa"), raw, tmp_path / "root")
    assert {path.name for path in placed} == {"val_v1.0.json", "documents"}
    assert check(registry.task("docvqa"), "val", tmp_path / "root").problems == [
        "1 questions, published are 5349"
    ]
    assert (raw / "downloads" / "val_v1.0.json").is_file()


@pytest.mark.parametrize(
    "spoil", [lambda raw: None, lambda raw: zipped(raw / "x.zip", **{"other.txt": b"x"})]
)
def test_prepare_that_finds_nothing(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    (tmp_path / "raw").mkdir()
    spoil(tmp_path / "raw")
    with pytest.raises(DataError, match="holds nothing of docvqa"):
        prepare(registry.task("docvqa"), tmp_path / "raw", tmp_path / "root")
    with pytest.raises(DataError, match="no such folder"):
        prepare(registry.task("docvqa"), tmp_path / "none", tmp_path / "root")


def test_prepare_refuses_an_archive_that_leaves_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zipped(tmp_path / "raw" / "x.zip", **{"../../evil.json": b"x"})
    command = [
        "data",
        "prepare",
        "docvqa",
        "--from",
        str(tmp_path / "raw"),
        "--data-root",
        str(tmp_path / "root"),
    ]
    assert invoke(command) == 3
    assert "leaves the folder: refused" in capsys.readouterr().err
    assert not list(tmp_path.rglob("evil.json"))
    assert not list((tmp_path / "root" / "docvqa").iterdir())
