"""MMBench: files, prompts, circular accuracy by protocol, judge, submission."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from general_tables import cell, plain_values, prompt, records_of, values, write_tsv
from scored_answers import GivenReplies

from evalkit.errors import DataError, ImageError
from evalkit.pipeline.summary import groups
from evalkit_tasks.general.mmbench import MMBench

HEADER = (
    *("index", "question", "hint", "A", "B", "C", "D", "answer"),
    *("category", "image", "source", "l2-category", "comment", "split"),
)
M = 10**6


def row(
    index: int, answer: str = "A", image: str | None = None, hint: str = "", **cells: str
) -> list[object]:
    named = {
        "question": "What is it?", "A": "cat", "B": "dog", "C": "catfish", "D": "bird", "category": "leaf",
        "source": "", "l2-category": "branch", "comment": "", "split": "dev",
    } | cells  # fmt: skip
    named |= {
        "index": str(index),
        "answer": answer,
        "hint": hint,
        "image": cell() if image is None else image,
    }
    return [named[name] for name in HEADER]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rows = [row(5 + M, "B"), row(5, "A"), row(6, "D", category="other"), row(6 + M, "C"), row(9 + M, "A")]
    write_tsv(tmp_path / "MMBench_DEV_EN.tsv", HEADER, rows)
    return tmp_path


@pytest.mark.parametrize(
    ("split", "name"),
    [
        ("dev-en", "mmbench_dev_20230712.tsv"),
        ("dev-en", "mmbench_dev_en_20231003.tsv"),
        ("dev-en", "MMBench_DEV_EN.tsv"),
        ("dev-en", "MMBench_DEV_EN_V11.tsv"),
        ("dev-cn", "mmbench_dev_cn_20231003.tsv"),
        ("dev-cn", "MMBench_DEV_CN.tsv"),
        ("test-en", "mmbench_test_en_20231003.tsv"),
        ("test-en", "MMBench_TEST_EN_V11.tsv"),
        ("test-cn", "MMBench_TEST_CN.tsv"),
        ("test-cn", "MMBench_TEST_CN_V11.tsv"),
    ],
)
def test_every_published_name_is_read(tmp_path: Path, split: str, name: str) -> None:
    write_tsv(tmp_path / name, HEADER, [row(1)])
    task = MMBench()
    assert [sample.id for sample in task.samples(split, tmp_path)] == ["1"]
    assert task.data_source.files_of(split)[0].find(tmp_path) is not None


def test_samples_follow_the_file(root: Path) -> None:
    samples = list(MMBench().samples("dev-en", root))
    assert [sample.id for sample in samples] == ["1000005", "5", "6", "1000006", "1000009"]
    assert [sample.cluster for sample in samples] == ["5", "5", "6", "6", "9"]
    assert samples[0].images[0].open().size == (4, 3)
    assert samples[0].tags == {"l2-category": "branch", "category": "leaf"}


def test_circular_and_vanilla(root: Path) -> None:
    task = MMBench("vlmevalkit")
    records = records_of(
        task, "dev-en", root, {"5": "A", "1000005": "B", "6": "D", "1000006": "A", "1000009": "A"}
    )
    assert plain_values(task, records) == {"circular": 50.0, "vanilla": 100.0}
    assert {name: value.n for name, value in values(task, records).items()} == {"circular": 2, "vanilla": 2}
    report = groups(task, records)
    assert report["category"]["other"] == {
        "circular": {"value": 0.0, "n": 1},
        "vanilla": {"value": 100.0, "n": 1},
    }
    assert report["l2-category"]["branch"]["circular"] == {"value": 50.0, "n": 2}


@pytest.mark.parametrize(
    ("text", "paper", "vlmevalkit", "lmms"),
    [
        ("Answer: B", "A", "B", "B"),
        ("The answer is B.", "B", "B", "B"),
        ("Dog", "D", "B", "B"),
        ("A dog is shown", "A", "A", "B"),
        ("catfish", "A", None, None),
        ("Cannot determine the answer", "C", "Z", None),
        ("B, C", "B", None, "C"),
        ("(A)", "A", "A", "A"),
        ("", None, None, None),
        ("b", None, None, None),
    ],
)
def test_letters_by_protocol(
    root: Path, text: str, paper: str | None, vlmevalkit: str | None, lmms: str | None
) -> None:
    for protocol, expected in (("paper", paper), ("vlmevalkit", vlmevalkit), ("lmms-eval", lmms)):
        record = records_of(MMBench(protocol), "dev-en", root, text)[1]
        assert record.data["choice"] == expected
        assert ("unparsed" in record.flags) == (expected is None)
        assert record.scores["vanilla"] == float(expected == "A")


def test_prompts(tmp_path: Path) -> None:
    write_tsv(tmp_path / "MMBench_DEV_EN.tsv", HEADER, [row(1, hint="Look.", C="", D="")])
    write_tsv(tmp_path / "MMBench_DEV_CN.tsv", HEADER, [row(1, hint="看。", C="", D="")])
    letter = "Answer with the option's letter from the given choices directly."
    assert prompt(MMBench(), "dev-en", tmp_path) == f"Look.\nWhat is it?\nA. cat\nB. dog\n{letter}"
    assert prompt(MMBench(), "dev-cn", tmp_path) == "看。\nWhat is it?\nA. cat\nB. dog\n请直接回答选项字母。"
    assert prompt(MMBench("vlmevalkit"), "dev-cn", tmp_path).endswith("请直接回答选项字母。")
    assert prompt(MMBench("lmms-eval"), "dev-en", tmp_path).startswith(
        "Look. What is it? There are several options:\nA. cat\nB. dog\n"
    )
    assert prompt(MMBench("lmms-eval"), "dev-cn", tmp_path).endswith(
        "请直接使用所提供的选项字母作为答案回答。"
    )


@pytest.mark.parametrize(
    ("protocol", "hint"), [("paper", ""), ("vlmevalkit", ""), ("lmms-eval", ""), ("lmms-eval", "nan")]
)
def test_no_hint_leaves_nothing_in_front_of_the_question(tmp_path: Path, protocol: str, hint: str) -> None:
    write_tsv(tmp_path / "MMBench_DEV_EN.tsv", HEADER, [row(1, hint=hint)])
    assert prompt(MMBench(protocol), "dev-en", tmp_path).startswith("What is it?")


def test_the_language_of_the_instruction(tmp_path: Path) -> None:
    """InternVL goes by the data set, VLMEvalKit by Chinese characters in the text."""
    write_tsv(tmp_path / "MMBench_DEV_CN.tsv", HEADER, [row(1)])
    assert prompt(MMBench(), "dev-cn", tmp_path).endswith("请直接回答选项字母。")
    assert prompt(MMBench("vlmevalkit"), "dev-cn", tmp_path).endswith("directly.")


def test_settings() -> None:
    limits = {p: MMBench(p).generation.max_new_tokens for p in MMBench.protocols}
    assert limits == {"paper": 100, "vlmevalkit": 4096, "lmms-eval": 1024}
    assert MMBench().image_policy.max_tiles == 6
    assert len({MMBench(p).prompt_fingerprint() for p in MMBench.protocols}) == 3


def test_chinese_tasks_of_lmms_eval(tmp_path: Path) -> None:
    """They have a limit of their own, and show the text nan where a hint is missing."""
    for name in ("MMBench_DEV_CN.tsv", "MMBench_DEV_EN.tsv"):
        write_tsv(tmp_path / name, HEADER, [row(1)])
    task = MMBench("lmms-eval")
    requests = [task.request(next(task.samples(split, tmp_path))) for split in ("dev-cn", "dev-en")]
    assert [request.generation.max_new_tokens for request in requests] == [256, 1024]
    hints = [request.messages[-1].text.startswith("nan ") for request in requests]
    assert hints == [True, False]


def test_options_of_any_number_and_words_that_read_as_missing(tmp_path: Path) -> None:
    header = [*HEADER, "E", "F"]
    cells = [*row(1, "F", A="None", B="NA", C="null", D="nan"), "", "six"]
    write_tsv(tmp_path / "MMBench_DEV_EN.tsv", header, [cells])
    sample = next(MMBench().samples("dev-en", tmp_path))
    assert sample.data["options"] == {"A": "None", "B": "NA", "C": "null", "D": "nan", "F": "six"}
    assert plain_values(MMBench(), records_of(MMBench(), "dev-en", tmp_path, "F")) == {
        "circular": 100.0,
        "vanilla": 100.0,
    }
    assert records_of(MMBench(), "dev-en", tmp_path, "It says null.")[0].prediction == "C"


def test_images_by_reference(tmp_path: Path) -> None:
    rows = [
        row(1 + M, image="1"),
        row(1, image=cell("blue")),
        row(2, image="77"),
        row(3, image=""),
        row(4, image="4"),
    ]
    write_tsv(tmp_path / "MMBench_DEV_EN.tsv", HEADER, rows)
    first, second, third, fourth, fifth = (s.images[0] for s in MMBench().samples("dev-en", tmp_path))
    assert first.digest() == second.digest() and first.identity() == second.identity()
    for image, reason in ((third, "row 77"), (fourth, "no image"), (fifth, "no image")):
        assert image.digest() == "missing"
        with pytest.raises(ImageError, match=reason):
            image.open()


def test_a_judge_is_asked_only_where_it_can_change_a_value(root: Path) -> None:
    task = MMBench("vlmevalkit")
    answers = {"5": "a puss", "1000005": "a puss", "6": "A", "1000006": "x", "1000009": "y"}
    judge = GivenReplies("A")
    judged = records_of(task, "dev-en", root, answers, judge)
    assert list(judge.asked) == ["1000005", "5"]
    question = judge.asked["5"]
    assert "a puss" in question.user and "B. dog" in question.user
    assert {r.id: r.data["choice"] for r in judged if r.id in judge.asked} == {"1000005": "A", "5": "A"}
    records_of(MMBench(), "dev-en", root, "hmm?", judge)
    assert not judge.asked


def test_test_split_without_answers(tmp_path: Path) -> None:
    header = [name for name in HEADER if name != "answer"]
    cells = [cell for name, cell in zip(HEADER, row(1), strict=True) if name != "answer"]
    write_tsv(tmp_path / "MMBench_TEST_EN.tsv", header, [cells])
    task = MMBench()
    records = records_of(task, "test-en", tmp_path, "A")
    for value in values(task, records).values():
        assert value.value is None and "not public" in str(value.reason)


def test_export(tmp_path: Path) -> None:
    from openpyxl import load_workbook

    write_tsv(tmp_path / "MMBench_DEV_EN.tsv", HEADER, [row(1, question="=1+1"), row(1 + M, "B", D="")])
    task = MMBench()
    task.submission.write(records_of(task, "dev-en", tmp_path, "Both\x07 of them"), tmp_path / "out.xlsx")
    sheet = [[c.value for c in line] for line in load_workbook(tmp_path / "out.xlsx").active.iter_rows()]
    assert sheet[0] == ["index", "question", "A", "B", "C", "D", "prediction", "answer", "split"]
    assert sheet[1] == [1, "=1+1", "cat", "dog", "catfish", "bird", "B", "A", "dev"]
    assert sheet[2][5:8] == [None, "B", "B"]
    task.submission.write(records_of(task, "dev-en", tmp_path, "é" * 40_000), tmp_path / "out.xlsx")
    long = load_workbook(tmp_path / "out.xlsx").active["G2"].value
    assert long == "é" * 32_767  # the most that a cell of Excel holds
    assert not list(tmp_path.glob("*.part"))


def test_malformed_tables(tmp_path: Path) -> None:
    path = tmp_path / "MMBench_DEV_EN.tsv"
    task = MMBench()
    with pytest.raises(DataError, match="holds none of mmbench_dev_20230712"):
        list(task.samples("dev-en", tmp_path))
    write_tsv(path, HEADER, [row(1), row(1)])
    with pytest.raises(DataError, match="index 1 occurs twice"):
        list(task.samples("dev-en", tmp_path))
    write_tsv(path, HEADER, [row(1), row(2)])
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: len(text) - 30], encoding="utf-8")
    with pytest.raises(DataError, match=r"record 3 has \d+ cells"):
        list(task.samples("dev-en", tmp_path))
    write_tsv(path, ["index", "text"], [["1", "x"]])
    with pytest.raises(DataError, match="column 'question' missing"):
        list(task.samples("dev-en", tmp_path))
    write_tsv(path, HEADER, [[("x1" if c == "1" else c) for c in row(1)]])
    with pytest.raises(DataError, match="'x1' is not a whole number"):
        list(task.samples("dev-en", tmp_path))
    path.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="empty file"):
        list(task.samples("dev-en", tmp_path))


def test_real_samples(shared_dir: Path) -> None:
    root = shared_dir / "data" / "mmbench"
    for split, language in (("dev-en", "directly."), ("dev-cn", "请直接回答选项字母。")):
        task = MMBench()
        samples = list(task.samples(split, root))
        assert len(samples) == 20
        assert all(sample.images[0].open().size[0] > 0 for sample in samples)
        assert task.request(samples[0]).messages[-1].text.endswith(language)
        answers = {sample.id: str(sample.target) for sample in samples}
        assert plain_values(task, records_of(task, split, root, answers)) == {
            "circular": 100.0,
            "vanilla": 100.0,
        }
    with (root / "MMBench_DEV_EN.tsv").open(encoding="utf-8", newline="") as file:
        csv.field_size_limit(1 << 30)
        plain = list(csv.DictReader(file, delimiter="\t"))
    assert [sample.id for sample in MMBench().samples("dev-en", root)] == [line["index"] for line in plain]
