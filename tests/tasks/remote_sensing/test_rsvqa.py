"""RSVQA: official files and lists, the paper's scorer, broken files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from general_tables import plain_values, records_of, values
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.contracts import Record, Response, Sample
from evalkit.errors import DataError, UsageError
from evalkit_tasks.remote_sensing.rsvqa import RsvqaHr, RsvqaLr
from evalkit_tasks.remote_sensing.rsvqa_files import Answers

Row = dict[str, Any]


def question(i: int, kind: str, text: str = "Is it?", image: int = 7, **more: Any) -> Row:
    body = {
        "id": i,
        "img_id": image,
        "type": kind,
        "question": text,
        "answers_ids": [100 + i],
        "active": True,
    }
    return {**body, **more}


def answer(i: int, text: str, **more: Any) -> Row:
    return {"id": 100 + i, "question_id": i, "answer": text, "active": True, **more}


def write(root: Path, questions: list[Row], answers: list[Row], prefix: str = "LR_split_test") -> Path:
    for part, rows in (("questions", questions), ("answers", answers)):
        (root / f"{prefix}_{part}.json").write_text(json.dumps({part: rows}, indent=4), encoding="utf-8")
    return root


def test_official_files_are_joined_by_id_and_stubs_skipped(tmp_path: Path) -> None:
    stub = {"id": 0, "active": False}
    write(
        tmp_path,
        [stub, question(5, "presence", "A?"), {"id": 6, "active": False}, question(3, "comp", "B?", image=8)],
        [answer(3, "no"), stub, answer(9, "unused"), answer(5, "yes")],
    )
    samples = list(RsvqaLr().samples("test", tmp_path))
    assert [(s.id, s.target, s.tags["type"], s.cluster) for s in samples] == [
        ("5", "yes", "presence", "7"),
        ("3", "no", "comp", "8"),
    ]
    assert samples[1].images[0].paths() == (str(tmp_path / "Images_LR" / "8.tif"),)
    request = RsvqaLr().request(samples[0])
    assert request.messages[-1].text == "A?\nAnswer the question using a single word or phrase."
    assert (request.generation.max_new_tokens, request.image_policy.max_tiles) == (50, 12)


@pytest.mark.parametrize(
    ("split", "prefix"),
    [("test1", "USGS_split_test"), ("test2", "USGS_split_test_phili"), ("val", "USGS_split_val")],
)
def test_high_resolution_splits(tmp_path: Path, split: str, prefix: str) -> None:
    write(tmp_path, [question(1, "area")], [answer(1, "9658m2")], prefix)
    (sample,) = RsvqaHr().samples(split, tmp_path)
    assert (sample.id, sample.target) == ("1", "9658m2")
    assert sample.images[0].paths() == (str(tmp_path / "Data" / "7.tif"),)
    assert all(f.find(tmp_path) for f in RsvqaHr().data_source.files_of(split) if not f.path.endswith("/"))


@pytest.mark.parametrize("place", ["", "val"])
def test_internvl_lists(tmp_path: Path, place: str) -> None:
    rows = [
        {"id": 11, "image": "7.tif", "question": "How many?", "gt_answer": "4", "type": "count"},
        {"image": "7.tif", "question": "Is it?", "gt_answer": "yes", "type": "presence"},
    ]
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "rsvqa_l_test_instruct.json").write_text(json.dumps(rows), encoding="utf-8")
    images = tmp_path / "images" / "RSVQA_L" / "Images_LR"
    images.mkdir(parents=True)
    (images / "7.tif").write_bytes(b"x")
    samples = list(RsvqaLr().samples("test", tmp_path))
    assert [s.id for s in samples] == ["11", "1"]
    assert samples[0].images[0].paths() == (str(images / "7.tif"),)
    assert samples[0].images[0] is samples[1].images[0]
    assert all(f.find(tmp_path) for f in RsvqaLr().data_source.files_of("test"))


# The scorer ---------------------------------------------------------------------------------------------


def score_py(kind: str, response: str, truth: str) -> bool:
    """rs_vqa/score.py for one entry."""

    def count(given: Any, wanted: Any) -> bool:
        try:
            given, wanted = int(given), int(wanted)
        except ValueError:
            return False
        if given == 0 and wanted == 0:
            return True
        if 0 < given <= 100 and 0 < wanted <= 100:
            return True
        if 100 < given <= 1000 and 100 < wanted <= 1000:
            return True
        return bool(given > 1000 and wanted > 1000)

    if kind == "count":
        return count(response, truth)
    if kind == "area":
        try:
            return count(int(response), int(truth.rstrip("m2")))
        except ValueError:
            return False
    return bool(response and response.lower() == truth.lower())


def scored(kind: str, text: str, truth: str, protocol: str = "paper") -> Record:
    sample = Sample("1", ("?",), (), truth, "7", {"type": kind})
    return RsvqaHr(protocol).score(sample, Response(text=text))


TEXTS = st.one_of(
    st.sampled_from(
        [
            "yes",
            "Yes",
            "yes.",
            " yes",
            "no",
            "",
            "0",
            " 0 ",
            "+7",
            "1_0",
            "5.0",
            "1,000",
            "122m2",
            "٣",
            "rural",
        ]
    ),
    st.integers(-3, 2000).map(str),
    st.text(max_size=5),
)
TRUTHS = {
    "presence": st.sampled_from(["yes", "no"]),
    "comp": st.sampled_from(["yes", "no"]),
    "rural_urban": st.sampled_from(["rural", "urban"]),
    "count": st.integers(0, 2000).map(str),
    "area": st.integers(0, 20000).map(lambda value: f"{value}m2"),
}
ENTRIES = st.sampled_from(sorted(TRUTHS)).flatmap(lambda kind: st.tuples(st.just(kind), TEXTS, TRUTHS[kind]))


@given(st.lists(ENTRIES, min_size=1, max_size=25))
@settings(max_examples=40, deadline=None)
def test_values_equal_the_papers_scorer(entries: list[tuple[str, str, str]]) -> None:
    task = RsvqaLr()
    records = [
        task.score(Sample(str(i), ("?",), (), truth, str(i), {"type": kind}), Response(text=text))
        for i, (kind, text, truth) in enumerate(entries)
    ]
    right, total = Counter[str](), Counter[str]()
    for entry in entries:
        right[entry[0]] += score_py(*entry)
        total[entry[0]] += 1
    found = plain_values(task, records)
    parts = {"rural_urban": "rural_urban", "presence": "presence", "compare": "comp", "count": "count"}
    for name, kind in parts.items():
        expected = 100 * right[kind] / total[kind] if total[kind] else None
        assert found[name] == (None if expected is None else pytest.approx(expected, abs=1e-9))
    useful = [kind for kind in total if kind not in ("count", "area")]
    pooled = 100 * sum(right[k] for k in useful) / sum(total[k] for k in useful) if useful else None
    assert found["average"] == (None if pooled is None else pytest.approx(pooled, abs=1e-9))
    kinds = ("rural_urban", "presence", "comp")
    if all(total[kind] for kind in kinds):
        macro = sum(100 * right[kind] / total[kind] for kind in kinds) / 3
        assert found["average_macro"] == pytest.approx(macro, abs=1e-9)
    else:
        assert found["average_macro"] is None


@pytest.mark.parametrize(
    ("kind", "text", "truth", "paper", "official"),
    [
        ("presence", "yes", "yes", 1, 1),
        ("presence", "YES", "yes", 1, 1),
        ("presence", "yes.", "yes", 0, 0),
        ("presence", " yes", "yes", 0, 0),
        ("presence", "yes, it is", "yes", 0, 0),
        ("presence", "", "yes", 0, 0),
        ("presence", "", "", 0, 0),
        ("count", "0", "0", 1, 1),
        ("count", " 0 ", "0", 1, 1),
        ("count", "1", "100", 1, 1),
        ("count", "100", "101", 0, 0),
        ("count", "1001", "99999", 1, 1),
        ("count", "5.0", "5", 0, 0),
        ("count", "1,000", "1000", 0, 0),
        ("count", "-1", "-1", 0, 0),
        ("area", "9658", "9658m2", 1, 1),
        ("area", "122", "122m2", 0, 1),
        ("area", "122m2", "122m2", 0, 1),
        ("area", "2", "2m2", 0, 1),
        ("area", "1", "122m2", 1, 0),
    ],
)
def test_scores_by_protocol(kind: str, text: str, truth: str, paper: int, official: int) -> None:
    assert scored(kind, text, truth).scores["accuracy"] == paper
    assert scored(kind, text, truth, "official").scores["accuracy"] == official


def test_unreadable_numbers_are_counted() -> None:
    assert scored("count", "five", "5").flags == ("unparsed",)
    assert scored("count", "5", "5").flags == ()
    assert scored("presence", "five", "yes").flags == ()


def test_metrics_and_their_order() -> None:
    assert [m.name for m in RsvqaLr().metrics()] == [
        *("rural_urban", "presence", "compare", "average", "average_macro", "count")
    ]
    assert [m.name for m in RsvqaHr().metrics()] == [
        *("presence", "compare", "average", "average_macro", "count", "area")
    ]
    with pytest.raises(UsageError, match="official"):
        RsvqaLr("vlmevalkit")


# Broken files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("questions", "answers", "message"),
    [
        ([question(1, "presence")], [], "no active answer"),
        ([question(1, "presence")], [answer(1, "yes", active=False)], "no active answer"),
        ([question(1, "presence", answers_ids=[])], [answer(1, "yes")], "record 1: answers_ids"),
        ([question(1, "presence", answers_ids=[101, 101])], [answer(1, "yes")], "not a list of one id"),
        ([{"id": 1, "active": True}], [answer(1, "yes")], "'img_id' missing"),
        ([question(1, "presence", question=None)], [answer(1, "yes")], "not text"),
        ([question(1, "presence", type=["a"])], [answer(1, "yes")], "record 1"),
        ([question(1, "presence")], [{"id": 101}], "'answer' missing"),
        ([question(1, "presence", active=" ")], [answer(1, "yes")], "active must be true or false"),
        ([question(1, "presence")], [answer(1, "yes"), answer(1, "no")], "101 occurs twice"),
        (["x"], [answer(1, "yes")], "not an object"),
    ],
)
def test_malformed_records(tmp_path: Path, questions: list[Any], answers: list[Any], message: str) -> None:
    write(tmp_path, questions, answers)
    with pytest.raises(DataError, match=message):
        list(RsvqaLr().samples("test", tmp_path))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(-3, 9) | st.integers() | st.sampled_from(["7", "", None]), st.sampled_from("abc")
        )
    )
)
def test_answers_are_a_dict_by_id(pairs: list[tuple[Any, str]]) -> None:
    expected = dict(pairs)
    if any(expected[name] != text for name, text in pairs):
        with pytest.raises(TypeError, match="occurs twice with different texts"):
            Answers(iter(pairs))
        return
    answers = Answers(iter(pairs))
    for name in [*expected, -4, 3, 10, 1 << 70, "x", None]:
        assert answers.get(name) == expected.get(name)


def test_missing_and_truncated_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"LR_split_test_answers\.json: missing"):
        list(RsvqaLr().samples("test", tmp_path))
    write(tmp_path, [question(1, "presence")], [answer(1, "yes")])
    path = tmp_path / "LR_split_test_questions.json"
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(DataError, match="broken JSON"):
        list(RsvqaLr().samples("test", tmp_path))


def test_questions_are_read_lazily(tmp_path: Path) -> None:
    write(tmp_path, [question(1, "presence")], [answer(1, "yes")])
    path = tmp_path / "LR_split_test_questions.json"
    path.write_text(path.read_text(encoding="utf-8").rstrip("]}\n ") + ', "torn', encoding="utf-8")
    reader = RsvqaLr().samples("test", tmp_path)
    with pytest.raises(DataError):
        list(reader)


# Real and drawn files -----------------------------------------------------------------------------------


def test_real_excerpt(shared_dir: Path) -> None:
    root = shared_dir / "data" / "rsvqa-lr"
    if not root.is_dir():
        pytest.skip("no RSVQA-LR excerpt")
    for split, count, images in (("test", 400, 4), ("val", 500, 5)):
        samples = list(RsvqaLr().samples(split, root))
        assert (len(samples), len({s.cluster for s in samples})) == (count, images)
        assert all(s.images[0].open().size == (256, 256) for s in {s.cluster: s for s in samples}.values())
    records = records_of(RsvqaLr(), "test", root, {s.id: s.target for s in RsvqaLr().samples("test", root)})
    assert all(value == 100.0 for value in plain_values(RsvqaLr(), records).values())


@pytest.mark.parametrize("task", [RsvqaLr(), RsvqaHr()], ids=["lr", "hr"])
def test_miniature(tmp_path: Path, task: RsvqaLr | RsvqaHr) -> None:
    task.data_source.draw(tmp_path)
    samples = list(task.samples("miniature", tmp_path))
    assert 100 < len(samples) < 500
    assert samples[0].images[0].open().size == (128, 128)
    right = records_of(task, "miniature", tmp_path, {s.id: s.target for s in samples})
    found = values(task, right)
    assert {name: v.value for name, v in found.items() if name != "area"} == {
        name: 100.0 for name in found if name != "area"
    }
    kinds = Counter(s.tags["type"] for s in samples)
    assert {"presence", "comp", "count"} <= set(kinds)
    wrong = plain_values(task, records_of(task, "miniature", tmp_path, "maybe"))
    assert all(value == 0.0 for value in wrong.values())
