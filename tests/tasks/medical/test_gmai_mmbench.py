"""GMAI-MMBench: the published table, single and multiple answers, groups, broken tables, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from general_tables import cell, plain_values, records_of, values, write_tsv
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.contracts import Record, Response, Sample
from evalkit.data.locate import locate
from evalkit.errors import DataError
from evalkit.pipeline.summary import groups
from evalkit_tasks.medical.gmai_mmbench import TEST_PARTS, VALIDATION, GmaiMmbench

HEADER = (
    *("index", "image", "question", "A", "B", "C", "D", "E", "answer", "category", "clinical VQA task"),
    *("department", "perceptual granularity", "modality", "original task"),
)


def row(index: object, answer: str, granularity: str = "Image Level", **more: str) -> tuple[object, ...]:
    cells = {
        "index": index,
        "image": cell("blue"),
        "question": "What is seen?",
        "answer": answer,
        "A": "tumour",
        "B": "None",
        "C": "bone",
        "D": "",
        "E": "",
        "category": "c",
        "modality": "CT",
        "clinical VQA task": "Disease Diagnosis",
        "department": "Oncology",
        "original task": "t",
        "perceptual granularity": granularity,
        **more,
    }
    return tuple(cells[name] for name in HEADER)


def table(root: Path, *rows: tuple[object, ...]) -> Path:
    write_tsv(root / VALIDATION, HEADER, rows)
    return root


def test_rows_as_published(tmp_path: Path) -> None:
    table(tmp_path, row(12, "A"), row(3, "AC", image=cell("red")), row(7, "B"))
    samples = list(GmaiMmbench().samples("val", tmp_path))
    assert [(s.id, s.target) for s in samples] == [("12", "A"), ("3", "AC"), ("7", "B")]
    assert samples[0].cluster == samples[2].cluster != samples[1].cluster
    assert samples[0].images[0].open().size == (4, 3)
    assert dict(samples[0].tags) == {
        "clinical vqa task": "Disease Diagnosis",
        "department": "Oncology",
        "perceptual granularity": "Image Level",
    }
    request = GmaiMmbench().request(samples[0])
    assert request.messages[-1].text == (
        "What is seen?\nA. tumour\nB. None\nC. bone\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert request.image_policy.max_tiles == 6


@pytest.mark.parametrize(("cell_text", "answer"), [(" B ", "B"), ("AC", "AC"), ("A, C", "AC"), ("A;C", "AC")])
def test_answers_as_written(tmp_path: Path, cell_text: str, answer: str) -> None:
    (sample,) = GmaiMmbench().samples("val", table(tmp_path, row(0, cell_text)))
    assert sample.target == answer


def test_columns_rest_on_their_rows(tmp_path: Path) -> None:
    table(
        tmp_path,
        row(0, "A", "Contour Level"),
        row(1, "A", "mask level"),
        row(2, "A", "Image Level"),
        row(3, "B", "BOX LEVEL"),
        row(4, "AC", "Mask Level"),
        row(5, "BC", "Image Level"),
        row(6, "A", "something else"),
    )
    found = values(GmaiMmbench(), records_of(GmaiMmbench(), "val", tmp_path, "A"))
    assert {name: (value.value, value.n) for name, value in found.items()} == {
        "seg_c": (100.0, 1),
        "seg_m": (100.0, 1),
        "cls_2d": (100.0, 1),
        "det_2d": (0.0, 1),
        "mcls_2d_acc": (50.0, 2),
        "mcls_2d_recall": (25.0, 2),
        "overall": (80.0, 5),
    }


def test_groups_hold_overall_by_the_raw_text(tmp_path: Path) -> None:
    table(
        tmp_path,
        row(0, "A", department="Oncology"),
        row(1, "B", department="Radiology "),
        row(2, "AC", department="Radiology "),
    )
    report = groups(GmaiMmbench(), records_of(GmaiMmbench(), "val", tmp_path, "A"))
    assert set(report) == {"clinical vqa task", "department", "perceptual granularity"}
    assert report["department"] == {
        "Oncology": {"overall": {"value": 100.0, "n": 1}},
        "Radiology ": {"overall": {"value": 0.0, "n": 1}},
    }


def scored(text: str, answer: str | None, options: dict[str, str] | None = None) -> Record:
    options = options or {"A": "cat", "B": "dog", "C": "catfish", "D": "bird"}
    data: dict[str, Any] = {"options": options, "question": "?"}
    return GmaiMmbench().score(Sample("0", ("?",), (), answer, "c", {}, data), Response(text=text))


@pytest.mark.parametrize(
    ("text", "letter", "unparsed"),
    [
        ("B", "B", False),
        ("Answer: B", "B", False),
        ("The answer is B.", "B", False),
        ("Dog", "B", False),
        ("(A)", "A", False),
        ("**B**", "B", False),
        ("b", None, True),
        ("Both", None, True),
        ("catfish", None, True),
        ("Cannot determine the answer", "Z", False),
        ("", None, True),
    ],
)
def test_single_answers_are_read_by_vlmevalkits_rules(text: str, letter: str | None, unparsed: bool) -> None:
    found = scored(text, "B")
    assert found.prediction == letter
    assert found.scores == {"accuracy": float(letter == "B")}
    assert ("unparsed" in found.flags) is unparsed


@pytest.mark.parametrize(
    ("text", "precision", "recall"),
    [
        ("AC", 1.0, 1.0),
        ("A", 1.0, 0.5),
        ("A, B", 0.5, 0.5),
        ("B", 0.0, 0.0),
        ("ABCD", 0.5, 1.0),
        ("", 0.0, 0.0),
        ("nothing", 0.0, 0.0),
    ],
)
def test_several_answers(text: str, precision: float, recall: float) -> None:
    assert scored(text, "AC").scores == {"precision": precision, "recall": recall}


LETTERS = st.lists(st.sampled_from("ABCD"), unique=True, max_size=4).map("".join)


@given(st.lists(st.tuples(LETTERS, LETTERS.filter(lambda t: len(t) > 1)), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_mcls_values_are_macro_means(pairs: list[tuple[str, str]]) -> None:
    found = plain_values(GmaiMmbench(), [scored(", ".join(text), answer) for text, answer in pairs])
    hits = [sum(letter in answer for letter in text) for text, answer in pairs]
    acc = [h / len(text) if text else 0.0 for h, (text, _) in zip(hits, pairs, strict=True)]
    recall = [h / len(answer) if text else 0.0 for h, (text, answer) in zip(hits, pairs, strict=True)]
    assert found["mcls_2d_acc"] == pytest.approx(100 * sum(acc) / len(acc), abs=1e-9)
    assert found["mcls_2d_recall"] == pytest.approx(100 * sum(recall) / len(recall), abs=1e-9)
    assert found["overall"] is None


def test_test_parts_have_no_labels_and_are_exported(tmp_path: Path) -> None:
    import openpyxl

    without = [name for name in HEADER if name != "answer"]
    for part, name in enumerate(TEST_PARTS):
        cells = dict(zip(HEADER, row(part, ""), strict=True))
        write_tsv(tmp_path / name, without, [[cells[column] for column in without]])
    records = records_of(GmaiMmbench(), "test", tmp_path, "=B")
    assert [r.id for r in records] == [str(part) for part in range(11)]
    found = values(GmaiMmbench(), records)
    assert all(value.value is None and "not public" in str(value.reason) for value in found.values())
    GmaiMmbench().submission.write(records, tmp_path / "out.xlsx")
    sheet = openpyxl.load_workbook(tmp_path / "out.xlsx").worksheets[0]
    head, first, *_ = sheet.iter_rows(values_only=True)
    cells = dict(zip(head, first, strict=True))
    assert (cells["index"], cells["prediction"], cells["B"], cells["D"]) == ("0", "=B", "None", None)
    assert sheet.max_row == 12


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((row(0, ""),), "answer ''"),
        ((row(0, "a"),), "answer 'a'"),
        ((row(0, "F"),), "answer 'F'"),
        ((row(0, "A"), row(0, "B")), "occurs twice"),
        ((row(0, "A")[:-1],), "cells"),
    ],
)
def test_broken_rows(tmp_path: Path, rows: tuple[tuple[object, ...], ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(GmaiMmbench().samples("val", table(tmp_path, *rows)))


def test_missing_columns_images_and_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        list(GmaiMmbench().samples("val", tmp_path))
    write_tsv(tmp_path / VALIDATION, HEADER[:3], [(0, cell(), "?")])
    with pytest.raises(DataError, match="column 'A' missing"):
        list(GmaiMmbench().samples("val", tmp_path))
    table(tmp_path, row(0, "A", image=""), row(1, "A"))
    assert [s.images[0].digest() == "missing" for s in GmaiMmbench().samples("val", tmp_path)] == [
        True,
        False,
    ]
    path = tmp_path / VALIDATION
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="cells"):
        list(GmaiMmbench().samples("val", tmp_path))


def test_the_hub_holds_the_table_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    monkeypatch.delenv("EVALKIT_DATA", raising=False)
    asked = []

    def snapshot_download(repository: str, *, allow_patterns: list[str], local_dir: Path, **_: object) -> str:
        asked.append((repository, allow_patterns))
        local_dir.mkdir(parents=True, exist_ok=True)
        if len(asked) > 1:
            table(local_dir, row(5, "A"))
        return str(local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(DataError, match="does not hold GMAI-MMBench_VAL"):
        locate(GmaiMmbench(), "val")
    folder = locate(GmaiMmbench(), "val")
    assert [s.id for s in GmaiMmbench().samples("val", folder)] == ["5"]
    assert locate(GmaiMmbench(), "val", offline=True) == folder
    assert asked == [("VLMEval/GMAI-MMBench", [VALIDATION])] * 2


def test_a_very_long_answer_is_scored() -> None:
    assert scored("AB " * 1_000_000, "AB").scores["precision"] == 1.0
    assert scored("no " * 1_000_000, "A").scores["accuracy"] == 0.0


def test_miniature(tmp_path: Path) -> None:
    task = GmaiMmbench()
    task.data_source.draw(tmp_path)
    samples = list(task.samples("miniature", tmp_path))
    assert samples[0].images[0].open().size == (128, 128)
    found = plain_values(task, records_of(task, "miniature", tmp_path, {s.id: s.target for s in samples}))
    assert set(found.values()) == {100.0}
    assert plain_values(task, records_of(task, "miniature", tmp_path, ""))["overall"] == 0.0
