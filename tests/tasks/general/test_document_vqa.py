"""DocVQA, InfographicVQA and TextVQA: layouts, prompts, scores, submission, broken files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from general_tables import plain_values, png, prompt, records_of, values

from evalkit.contracts import Failure, Response, Sample
from evalkit.errors import DataError
from evalkit.task import failed_record
from evalkit_tasks.general.docvqa import DocVQA, InfographicVQA
from evalkit_tasks.general.textvqa import TextVQA

ITEM = {
    "questionId": 7,
    "question": "Page?",
    "image": "documents/a_1.png",
    "docId": 1,
    "answers": ["2", "page 2"],
}
INFO = {"questionId": 98, "question": "Share?", "image_local_name": "31.jpeg", "answers": ["5%"]}
SHORT = "Answer the question using a single word or phrase."


def listing(path: Path, *items: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"dataset_name": "x", "dataset_version": "1.0", "dataset_split": "val", "data": items}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png())


@pytest.mark.parametrize(
    ("questions", "image"),
    [
        ("val/val_v1.0.json", "val/documents/a_1.png"),
        ("spdocvqa_qas/val_v1.0_withQT.json", "spdocvqa_images/a_1.png"),
    ],
)
def test_docvqa_layouts(tmp_path: Path, questions: str, image: str) -> None:
    listing(tmp_path / questions, ITEM)
    write_image(tmp_path / image)
    (sample,) = DocVQA().samples("val", tmp_path)
    assert (sample.id, sample.target, sample.cluster) == ("7", ["2", "page 2"], "documents/a_1.png")
    assert sample.images[0].open().size == (4, 3)
    assert all(file.find(tmp_path) for file in DocVQA().data_source.files_of("val"))


@pytest.mark.parametrize(
    "questions",
    [
        "infographicsVQA_val_v1.0.json",
        "infographicsVQA_val_v1.0_withQT.json",
        "infographicsVQA_val_v1.0_other.json",
        "infographicsvqa_qas/infographicsVQA_val_v1.0_withQT.json",
    ],
)
def test_infovqa_layouts(tmp_path: Path, questions: str) -> None:
    listing(tmp_path / questions, INFO)
    write_image(tmp_path / "infographicsvqa_images" / "31.jpeg")
    (sample,) = InfographicVQA().samples("val", tmp_path)
    assert (sample.id, sample.target, sample.cluster) == ("98", ["5%"], "31.jpeg")
    assert sample.images[0].open().size == (4, 3)
    assert all(file.find(tmp_path) for file in InfographicVQA().data_source.files_of("val"))


def test_prompts_and_settings(tmp_path: Path) -> None:
    listing(tmp_path / "val" / "val_v1.0.json", ITEM)
    assert prompt(DocVQA(), "val", tmp_path) == f"Page? {SHORT}"
    assert prompt(DocVQA("lmms-eval"), "val", tmp_path) == f"Page?\n{SHORT}"
    assert [DocVQA(p).generation.max_new_tokens for p in DocVQA.protocols] == [100, 4096, 32, 100]
    assert [DocVQA(p).image_policy.max_tiles for p in DocVQA.protocols] == [18, 18, 6, 18]
    assert [InfographicVQA(p).image_policy.max_tiles for p in DocVQA.protocols] == [24, 24, 6, 24]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2", 100.0), ("PAGE  2", 100.0), ("page 3", 100 * 5 / 6), ("", 0.0), ("2 ", 50 + 50), ("none", 0.0)],
)
def test_anls(tmp_path: Path, text: str, expected: float) -> None:
    listing(tmp_path / "val" / "val_v1.0.json", ITEM)
    for protocol in DocVQA.protocols:
        task = DocVQA(protocol)
        found = plain_values(task, records_of(task, "val", tmp_path, text))
        assert found["anls"] == pytest.approx(expected, abs=1e-9)


def test_the_test_split_is_submitted(tmp_path: Path) -> None:
    item = {key: value for key, value in ITEM.items() if key != "answers"}
    listing(tmp_path / "test" / "test_v1.0.json", item, {**item, "questionId": 8})
    task = DocVQA()
    records = records_of(task, "test", tmp_path, " Ünder ")
    value = values(task, records)["anls"]
    assert value.value is None and "not public" in str(value.reason)
    sample = Sample("9", ("q",), (), None, "c")
    records.append(failed_record(sample, Response(error=Failure("image", "missing"))))
    task.submission.write(records, tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert content == [{"questionId": 7, "answer": " Ünder "}, {"questionId": 8, "answer": " Ünder "}]


def test_malformed_documents(tmp_path: Path) -> None:
    path = tmp_path / "val" / "val_v1.0.json"
    for items, message in (
        ([ITEM, ITEM], "id 7 occurs twice"),
        ([{**ITEM, "questionId": "x"}], "'x' is not a whole number"),
        ([{**ITEM, "answers": []}], "'answers' missing or empty"),
        ([{"questionId": 1}], "field 'question' missing"),
        (["text"], "expected an object, found str"),
    ):
        listing(path, *items)
        with pytest.raises(DataError, match=message):
            list(DocVQA().samples("val", tmp_path))
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="expected an object"):
        list(DocVQA().samples("val", tmp_path))
    path.write_text('{"data": 5}', encoding="utf-8")
    with pytest.raises(DataError, match="'data' is not a list"):
        list(DocVQA().samples("val", tmp_path))


def test_real_documents(shared_dir: Path) -> None:
    task, root = DocVQA(), shared_dir / "data" / "docvqa"
    samples = list(task.samples("val", root))
    assert len(samples) == 12 and len({sample.cluster for sample in samples}) == 3
    assert {sample.images[0].open().mode for sample in samples} == {"L"}
    answers = {sample.id: sample.target[-1] for sample in samples}
    assert plain_values(task, records_of(task, "val", root, answers)) == {"anls": 100.0}


# TextVQA ------------------------------------------------------------------------------------------------

SIGN = {
    "question_id": 1,
    "image_id": "ab",
    "question": "what does the SIGN say?",
    "answers": ["stop"] * 9 + ["go"],
}


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    listing(tmp_path / "TextVQA_0.5.1_val.json", SIGN, {**SIGN, "question_id": 2, "answers": ["Joe's"] * 10})
    write_image(tmp_path / "train_images" / "ab.jpg")
    return tmp_path


def test_textvqa_samples_and_prompts(signs: Path) -> None:
    samples = list(TextVQA().samples("val", signs))
    assert [(s.id, s.cluster, s.images[0].open().size) for s in samples] == [
        ("1", "ab", (4, 3)),
        ("2", "ab", (4, 3)),
    ]
    assert prompt(TextVQA(), "val", signs) == f"what does the SIGN say? {SHORT}"
    assert prompt(TextVQA("vlmevalkit"), "val", signs) == f"what does the SIGN say?\n{SHORT}"
    assert prompt(TextVQA("lmms-eval"), "val", signs) == f"What does the sign say?\n{SHORT}"
    assert [TextVQA(p).generation.max_new_tokens for p in TextVQA.protocols] == [10, 4096, 1024, 10]


@pytest.mark.parametrize(
    ("text", "paper", "vlmevalkit"),
    [("The STOP.", 50.0, 50.0), ("go", 15.0, 15.0), ("", 0.0, 0.0), ("joe 's", 50.0, 0.0)],
)
def test_textvqa_scores(signs: Path, text: str, paper: float, vlmevalkit: float) -> None:
    for protocol, expected in (("paper", paper), ("vlmevalkit", vlmevalkit), ("lmms-eval", paper)):
        task = TextVQA(protocol)
        found = plain_values(task, records_of(task, "val", signs, text))
        assert found["vqa_accuracy"] == pytest.approx(expected, abs=1e-9)


def test_malformed_textvqa(tmp_path: Path) -> None:
    for items, message in (
        ([SIGN, SIGN], "id 1 occurs twice"),
        ([{**SIGN, "answers": ["a"]}], "expected 10 answers"),
        ([{"question_id": 1}], "'image_id' missing"),
    ):
        listing(tmp_path / "TextVQA_0.5.1_val.json", *items)
        with pytest.raises(DataError, match=message):
            list(TextVQA().samples("val", tmp_path))
