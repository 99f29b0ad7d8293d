"""AI2D, OCRBench, MMMU and MathVista: files, prompts, scores by protocol, judges, broken files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from general_tables import cell, plain_values, prompt, records_of, values, write_tsv
from scored_answers import GivenReplies

from evalkit.errors import DataError
from evalkit.pipeline.summary import groups
from evalkit.store import image_reference
from evalkit_tasks.general.ai2d import AI2D
from evalkit_tasks.general.mathvista import MathVista
from evalkit_tasks.general.mmmu import MMMU
from evalkit_tasks.general.ocrbench import FORMULAS, OCRBench

LETTER = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."

# AI2D ---------------------------------------------------------------------------------------------------

AI2D_HEADER = ("index", "image", "question", "A", "B", "C", "D", "answer")


@pytest.fixture
def diagrams(tmp_path: Path) -> Path:
    rows = [
        (0, cell(), "Which?", "sun", "moon", "star", "", "A"),
        (1, "0", "And which?", "sun", "moon", "star", "earth", "B"),
    ]
    write_tsv(tmp_path / "AI2D_TEST.tsv", AI2D_HEADER, rows)
    return tmp_path


def test_ai2d_samples(diagrams: Path) -> None:
    first, second = AI2D().samples("test", diagrams)
    assert first.cluster == second.cluster and first.images[0].digest() == second.images[0].digest()
    assert prompt(AI2D(), "test", diagrams) == f"Which?\nA. sun\nB. moon\nC. star\n{LETTER}"
    assert [AI2D(p).generation.max_new_tokens for p in AI2D.protocols] == [10, 4096, 16, 10]


@pytest.mark.parametrize(
    ("text", "paper", "vlmevalkit", "lmms"),
    [
        ("a", 50, 0, 50),
        (" A\n", 50, 50, 50),
        ("A.", 0, 50, 50),
        ("the moon", 0, 50, 0),
        ("", 0, 0, 0),
    ],
)
def test_ai2d_scores(diagrams: Path, text: str, paper: float, vlmevalkit: float, lmms: float) -> None:
    for protocol, expected in (("paper", paper), ("vlmevalkit", vlmevalkit), ("lmms-eval", lmms)):
        task = AI2D(protocol)
        assert plain_values(task, records_of(task, "test", diagrams, text)) == {"accuracy": expected}


def test_ai2d_filter_of_lmms_eval(diagrams: Path) -> None:
    for text, expected in (("A. the moon", 50), (" \nB. a", 50), ("a. the moon", 0), ("It is A. sun", 0)):
        task = AI2D("lmms-eval")
        assert plain_values(task, records_of(task, "test", diagrams, text)) == {"accuracy": expected}, text


def test_ai2d_judge(diagrams: Path) -> None:
    task = AI2D("vlmevalkit")
    judge = GivenReplies("B")
    records = records_of(task, "test", diagrams, "the one that shines by night", judge)
    assert list(judge.asked) == ["0", "1"]
    assert plain_values(task, records) == {"accuracy": 50.0}
    assert [record.data["judge"] for record in records] == ["B", "B"]
    records_of(task, "test", diagrams, "A", judge)
    assert not judge.asked
    records_of(AI2D(), "test", diagrams, "hm?", judge)
    assert not judge.asked


def test_malformed_ai2d(tmp_path: Path) -> None:
    write_tsv(tmp_path / "AI2D_TEST.tsv", AI2D_HEADER, [(0, cell(), "q", "a", "b", "", "", "D")])
    with pytest.raises(DataError, match="answer 'D' is none of the options A, B"):
        list(AI2D().samples("test", tmp_path))


# OCRBench -----------------------------------------------------------------------------------------------


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    rows = [
        (0, cell(), " what is written?", "['CENTRE', 'Center']", "Regular Text Recognition"),
        (1, cell(), "formula?", "['Y _ 1\\n']", FORMULAS),
    ]
    write_tsv(tmp_path / "OCRBench.tsv", ("index", "image", "question", "answer", "category"), rows)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The word is centre.", (500, 500)),
        ("Y_1", (500, 500)),
        ("y_1 center", (500, 500)),
        ("ＣＥＮＴＲＥ", (0, 500)),  # lmms-eval folds full-width letters, but not in formulas
        ("Ｙ＿１", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_ocrbench_scores(texts: Path, text: str, expected: tuple[float, float]) -> None:
    for protocol in OCRBench.protocols:
        task, score = OCRBench(protocol), expected[protocol == "lmms-eval"]
        assert plain_values(task, records_of(task, "test", texts, text)) == {"score": score}


def test_ocrbench_report(texts: Path) -> None:
    task = OCRBench()
    records = records_of(task, "test", texts, "Y_1")
    value = values(task, records)["score"]
    assert (value.unit, value.n) == ("score", 2)
    assert groups(task, records)["type"][FORMULAS]["score"] == {"value": 1000.0, "n": 1}
    assert prompt(task, "test", texts) == f" what is written?\n{SHORT}"
    assert prompt(OCRBench("official"), "test", texts) == " what is written?"
    assert prompt(OCRBench("lmms-eval"), "test", texts) == "what is written?"


def test_malformed_ocrbench(tmp_path: Path) -> None:
    header = ("index", "image", "question", "answer", "category")
    write_tsv(tmp_path / "OCRBench.tsv", header, [(0, cell(), "q", "['x'", "t")])
    with pytest.raises(DataError, match="does not read as a list"):
        list(OCRBench().samples("test", tmp_path))
    write_tsv(tmp_path / "OCRBench.tsv", header, [(0, cell(), "q", "[]", "t")])
    with pytest.raises(DataError, match="no answer"):
        list(OCRBench().samples("test", tmp_path))


def test_real_ocrbench(shared_dir: Path) -> None:
    task, root = OCRBench(), shared_dir / "data" / "ocrbench"
    samples = list(task.samples("test", root))
    assert [sample.id for sample in samples] == [str(row) for row in range(30)]
    assert len({sample.tags["type"] for sample in samples}) == 10
    assert all(sample.images[0].digest() == "missing" for sample in samples)
    answers = {sample.id: f"It says {sample.target[-1]}!" for sample in samples}
    assert plain_values(task, records_of(task, "test", root, answers)) == {"score": 1000.0}
    upper = {sample.id: sample.target[-1].upper() for sample in samples}
    assert plain_values(task, records_of(task, "test", root, upper))["score"] == pytest.approx(1000 * 27 / 30)


# MMMU ---------------------------------------------------------------------------------------------------


@pytest.fixture
def exams(tmp_path: Path) -> Path:
    header = ("index", "image", "question", *"ABCD", "answer", "split", "category", "l2-category")
    two = str([cell("red"), cell("blue")])
    rows = [
        (0, cell(), "Which? <image 1>", "sun", "moon", "", "", "B", "validation", "Art", "Art & Design"),
        (1, two, "<image 1> or <image 2>?", "one", "two", "", "", "A", "validation", "Art", "Art & Design"),
        (2, cell(), "How many?", "", "", "", "", "12.5", "validation", "Math", "Science"),
        (3, cell(), "Not asked", "x", "y", "", "", "A", "dev", "Math", "Science"),
    ]
    write_tsv(tmp_path / "MMMU_DEV_VAL.tsv", header, rows)
    return tmp_path


def test_mmmu_samples_and_prompts(exams: Path) -> None:
    first, second, third = (MMMU().request(sample) for sample in MMMU().samples("val", exams))
    assert first.messages[0].text == f"Which? <image 1>\nA. sun\nB. moon\n{LETTER}"
    assert second.messages[0].text == (
        "Image-1: <image>\nImage-2: <image>\n<image 1> or <image 2>?\nA. one\nB. two\n"
        f"{LETTER}<Image-1><Image-2>"
    )
    assert [image.open().getpixel((0, 0)) for image in second.images] == [(255, 0, 0), (0, 0, 255)]
    assert third.messages[0].text == "How many?\nAnswer the question directly."
    official = [MMMU("official").request(s).messages[0].text for s in MMMU("official").samples("val", exams)]
    assert official[2] == f"How many?\n{SHORT}"


def test_mmmu_doubles_the_first_image_as_vlmevalkit_does(exams: Path) -> None:
    plain, task = list(MMMU().samples("val", exams)), MMMU("vlmevalkit")
    doubled = list(task.samples("val", exams))
    sizes = [[image.open().size for image in sample.images] for sample in doubled]
    assert sizes == [[(8, 6)], [(8, 6), (4, 3)], [(8, 6)]]
    first, same = doubled[0].images[0], plain[0].images[0]
    assert first.digest() != same.digest() and first.identity() != same.identity()
    assert image_reference(first) == image_reference(same)
    assert task.request(doubled[1]).messages[0].text.endswith(f"B. two\n{LETTER}")


@pytest.mark.parametrize(
    ("answers", "paper", "official"),
    [
        (("B", "A", "It is 12.5"), 3, 3),
        (("B", "A", "it is 1.25e1"), 2, 3),  # an open answer must contain the truth as written
        (("(B)", "I say A or B", "A"), 2, 1),  # open questions become options: "A" is the right one
        (("", "", ""), 0, 0),
    ],
)
def test_mmmu_scores(exams: Path, answers: tuple[str, ...], paper: int, official: int) -> None:
    given = {str(index): text for index, text in enumerate(answers)}
    for protocol, right in (("paper", paper), ("vlmevalkit", paper), ("official", official)):
        task = MMMU(protocol)
        records = records_of(task, "val", exams, given)
        assert plain_values(task, records)["accuracy"] == pytest.approx(100 * right / 3)
        assert groups(task, records)["category"]["Math"]["accuracy"]["n"] == 1


def test_malformed_mmmu(tmp_path: Path) -> None:
    header = ("index", "image", "question", "A", "B", "C", "D", "answer")
    write_tsv(tmp_path / "MMMU_DEV_VAL.tsv", header, [(0, cell(), "q", "a", "b", "", "", "")])
    with pytest.raises(DataError, match="no answer"):
        list(MMMU().samples("val", tmp_path))
    write_tsv(tmp_path / "MMMU_DEV_VAL.tsv", header, [(0, cell(), "q", "a", "b", "", "", "C")])
    with pytest.raises(DataError, match="'C' is none of the options"):
        list(MMMU().samples("val", tmp_path))
    row = (0, cell(), "q", "a", "b", "", "", "B")
    write_tsv(tmp_path / "MMMU_DEV_VAL.tsv", (*header, "split"), [(*row, "validaton")])
    with pytest.raises(DataError, match="row 1: split 'validaton' is none of dev, validation, test"):
        list(MMMU().samples("val", tmp_path))


# MathVista ----------------------------------------------------------------------------------------------

FREE = {"question": "How much?", "image": "images/1.jpg", "choices": None, "unit": "g", "precision": None,
        "answer": "0", "question_type": "free_form", "answer_type": "integer", "pid": "1",
        "metadata": {"task": "figure question answering"}}  # fmt: skip
CHOICE = {**FREE, "question_type": "multi_choice", "answer_type": "text", "choices": ["6cm", "7cm"],
          "answer": "7cm", "unit": None}  # fmt: skip


def mathvista(root: Path, *items: object) -> Path:
    (root / "data").mkdir(parents=True, exist_ok=True)
    content = {str(place): item for place, item in enumerate(items, 1)}
    (root / "data" / "testmini.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def test_mathvista_queries(tmp_path: Path) -> None:
    mathvista(tmp_path, FREE, CHOICE, {**FREE, "answer_type": "float", "precision": 2.0})
    queries = [sample.turns[0] for sample in MathVista().samples("testmini", tmp_path)]
    assert queries[0] == (
        "Hint: Please answer the question requiring an integer answer and provide the final value, "
        "e.g., 1, 2, 3, at the end.\nQuestion: How much? (Unit: g)"
    )
    assert queries[1].endswith("Question: How much?\nChoices:\n(A) 6cm\n(B) 7cm")
    assert "two decimal places" in queries[2]


@pytest.mark.parametrize(
    ("item", "text", "accuracy", "rules"),
    [
        (FREE, "0", 100.0, 100.0),
        (FREE, " 0 ", 100.0, 100.0),
        (FREE, "3", 0.0, 0.0),
        (FREE, "0.0", None, 0.0),
        (FREE, "It is 0", None, 0.0),
        (FREE, "", None, 0.0),
        ({**FREE, "answer_type": "float", "answer": "1.2"}, "1.20", 100.0, 100.0),
        ({**FREE, "answer_type": "list", "answer": "[1, 2]"}, "[1, 2]", 0.0, 0.0),
        (CHOICE, "B", 100.0, 100.0),
        (CHOICE, "(A)", 0.0, 0.0),
        (CHOICE, "7CM", 100.0, 100.0),
        (CHOICE, "who knows", None, 0.0),
    ],
)
def test_mathvista_scores(
    tmp_path: Path, item: dict[str, object], text: str, accuracy: float | None, rules: float
) -> None:
    task = MathVista()
    records = records_of(task, "testmini", mathvista(tmp_path, item), text)
    assert plain_values(task, records) == {"accuracy": accuracy, "accuracy_rules": rules}
    judge = GivenReplies("None")
    records_of(task, "testmini", tmp_path, text, judge)
    assert bool(judge.asked) == (accuracy is None)
    if accuracy is None:
        assert "1 of 1 answers need a judge" in str(values(task, records)["accuracy"].reason)


@pytest.mark.parametrize(("reply", "expected"), [("0", 100.0), ("1", 0.0), ("none at all", 0.0)])
def test_a_judge_extracts(tmp_path: Path, reply: str, expected: float) -> None:
    task = MathVista()
    judged = records_of(task, "testmini", mathvista(tmp_path, FREE), "It is 0", GivenReplies(reply))
    assert plain_values(task, judged) == {"accuracy": expected, "accuracy_rules": 0.0}


def test_mathvista_table(tmp_path: Path) -> None:
    header = ("index", "image", "question", "choices", "answer", "question_type", "answer_type", "task")
    rows = [
        (1, cell(), "Hint: so\nQuestion: how?", "['6cm', '7cm']", "7cm", "multi_choice", "text", "geometry")
    ]
    write_tsv(tmp_path / "MathVista_MINI.tsv", header, rows)
    assert prompt(MathVista(), "testmini", tmp_path) == "Hint: so\nQuestion: how?"
    records = records_of(MathVista(), "testmini", tmp_path, "B")
    assert plain_values(MathVista(), records)["accuracy"] == 100.0
    assert records[0].tags == {"task": "geometry"}


def test_malformed_mathvista(tmp_path: Path) -> None:
    for item, message in (
        ({**CHOICE, "answer": "9cm"}, "'9cm' is none of the choices"),
        ({**CHOICE, "choices": None}, "no choices"),
        ({"question": "q"}, "'answer' missing"),
    ):
        with pytest.raises(DataError, match=message):
            list(MathVista().samples("testmini", mathvista(tmp_path, item)))


def test_real_mathvista(shared_dir: Path) -> None:
    task, root = MathVista(), shared_dir / "data" / "mathvista"
    samples = list(task.samples("testmini", root))
    assert [s.id for s in samples] == [
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "11",
        "13",
        "74",
        "84",
        "93",
        "225",
        "506",
    ]
    answers = {sample.id: str(sample.target) for sample in samples}
    found = plain_values(task, records_of(task, "testmini", root, answers))
    assert found["accuracy"] == pytest.approx(100 * 12 / 14)  # both lists are wrong, as in VLMEvalKit
