"""MME-RealWorld on driving: files, prompts, the parsers' differences, pooled values, broken files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from general_tables import cell, plain_values, png, prompt, records_of, write_tsv

from evalkit.errors import DataError
from evalkit_tasks.driving.mme_realworld import MMERealWorldDriving

CHOICES = ["(A) Red", "(B) Green", "(C) Blue", "(D) Car", "(E) The image does not feature the object"]
ITEM = {
    "Question_id": "Perception/Autonomous_Driving/Objects/0000",
    "Image": "AutonomousDriving/a.jpg",
    "Text": "What is it?",
    "Question Type": "Multiple Choice",
    "Answer choices": CHOICES,
    "Ground truth": "B",
    "Category": "Objects",
    "Subtask": "Autonomous_Driving",
    "Task": "Perception",
}


def listing(root: Path, *items: object) -> Path:
    (root / "MME_RealWorld.json").write_text(json.dumps(items), encoding="utf-8")
    return root


# prediction: official, InternVL (paper), VLMEvalKit, lmms-eval
PARSED = [
    ("Best answer: D", "B", "D", "D", "D"),
    ("green", "B", "B", "", ""),
    ("the object", "E", "E", "", ""),
    ("red", "A", "A", "", ""),
    ("", "A", "A", "A", "A"),
    ("  \n", "A", "A", "A", "A"),
    ("Answer: D", "A", "A", "A", "A"),
    ("Based on the image, D", "B", "B", "B", "B"),
    ("The best answer is D", "D", "D", "D", "D"),
    ("The best option is (C)", "C", "C", "C", "C"),
    ("one two three four five six seven eight nine ten eleven", "", "", "", ""),
    ("one two three four five six seven eight nine ten eleven D", "D", "D", "D", "D"),
    ("(e)", "E", "E", "E", "E"),
]


@pytest.mark.parametrize(("text", "official", "paper", "vlmevalkit", "lmms"), PARSED)
def test_parsers(tmp_path: Path, text: str, official: str, paper: str, vlmevalkit: str, lmms: str) -> None:
    listing(tmp_path, ITEM)
    expected = {"official": official, "paper": paper, "vlmevalkit": vlmevalkit, "lmms-eval": lmms}
    for protocol, letter in expected.items():
        (record,) = records_of(MMERealWorldDriving(protocol), "test", tmp_path, text)
        assert record.prediction == letter
        assert record.scores["accuracy"] == float(letter == "B")
        assert ("unparsed" in record.flags) == (letter == "")


def test_prompts(tmp_path: Path) -> None:
    listing(tmp_path, ITEM)
    lines = "\n".join(CHOICES)
    ask = "Select the best answer to the above multiple-choice question based on the image. "
    respond = "Respond with only the letter (A, B, C, D, or E) of the correct option."
    thirteen = "image." + " " * 13 + "Respond"
    paper = prompt(MMERealWorldDriving(), "test", tmp_path)
    assert paper.startswith(f"What is it?选项如下所示:\n{lines}\nSelect the best answer")
    assert thirteen in paper and paper.endswith("option. \nThe best answer is:")
    english = f"What is it? The choices are listed below:\n{lines}\n{ask}{respond}"
    for protocol in ("official", "vlmevalkit"):
        text = prompt(MMERealWorldDriving(protocol), "test", tmp_path)
        assert text == f"{english} \nThe best answer is:"
    assert prompt(MMERealWorldDriving("lmms-eval"), "test", tmp_path) == f"{english}\nThe best answer is: "
    limits = [MMERealWorldDriving(p).generation.max_new_tokens for p in MMERealWorldDriving.protocols]
    assert limits == [100, 100, 4096, 16, 100]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("I see A truck. <answer> b\n</answer>", "B"),
        ("<answer>C</answer> or <answer>B</answer>", "C"),
        ("<answer></answer>B", "A"),
        ("A <answer>B", "A"),
        ("<ANSWER>B</ANSWER>", "A"),
    ],
)
def test_vlmevalkit_reads_answer_tags_first(tmp_path: Path, text: str, letter: str) -> None:
    listing(tmp_path, ITEM)
    (record,) = records_of(MMERealWorldDriving("vlmevalkit"), "test", tmp_path, text)
    assert record.prediction == letter


def test_values_are_pooled_and_other_subtasks_passed_over(tmp_path: Path) -> None:
    items = [{**ITEM, "Question_id": str(i)} for i in range(3)]
    items.append({**ITEM, "Question_id": "3", "Task": "Reasoning", "Ground truth": "A"})
    items.append({**ITEM, "Question_id": "4", "Subtask": "Monitoring"})
    listing(tmp_path, *items)
    task = MMERealWorldDriving()
    records = records_of(task, "test", tmp_path, {"0": "B", "1": "B", "2": "A", "3": "C"})
    found = plain_values(task, records)
    assert found == {"perception": pytest.approx(200 / 3), "reasoning": 0.0, "average": 50.0}


def test_keys_in_another_case_and_images_below_a_folder(tmp_path: Path) -> None:
    item = {("Question type" if key == "Question Type" else key): value for key, value in ITEM.items()}
    (tmp_path / "data" / "AutonomousDriving").mkdir(parents=True)
    (tmp_path / "data" / "AutonomousDriving" / "a.jpg").write_bytes(png())
    (sample,) = MMERealWorldDriving().samples("test", listing(tmp_path, item))
    assert sample.images[0].open().size == (4, 3)
    assert (sample.id, sample.cluster) == (ITEM["Question_id"], ITEM["Image"])


@pytest.mark.parametrize("options", ["plain", "text", "list"])
def test_the_table(tmp_path: Path, options: str) -> None:
    header = [
        "index",
        "image",
        "question",
        "multi-choice options",
        *"ABCDE",
        "answer",
        "category",
        "l2-category",
    ]
    texts = {
        "plain": "",
        "text": "The choices are listed below:\n" + "\n".join(CHOICES),
        "list": str(CHOICES),
    }
    letters = [choice[4:] for choice in CHOICES] if options == "plain" else [""] * 5
    row = [
        "5",
        cell(),
        "What is it?",
        texts[options],
        *letters,
        "B",
        "Reasoning/Autonomous_Driving",
        "Objects",
    ]
    write_tsv(tmp_path / "MME-RealWorld.tsv", header, [row, ["6", *row[1:-2], "Reasoning/Monitoring", "x"]])
    task = MMERealWorldDriving()
    (record,) = records_of(task, "test", tmp_path, "green")
    assert (record.id, record.prediction, record.tags) == (
        "5",
        "B",
        {"Task": "Reasoning", "Category": "Objects"},
    )
    assert f"{CHOICES[0]}\n" in prompt(task, "test", tmp_path)


def test_malformed_lists(tmp_path: Path) -> None:
    for items, message in (
        ([{**ITEM, "Answer choices": "x"}], "'Answer choices' is not a list"),
        ([{key: value for key, value in ITEM.items() if key != "Task"}], "'Task' missing"),
        ([ITEM, ITEM], "occurs twice"),
        ([{**ITEM, "Question Type": "Open"}], "question type 'Open' is not known"),
        ([{**ITEM, "Subtask": "Monitoring"}], "no question of the subtask"),
        ([5], "expected an object"),
    ):
        with pytest.raises(DataError, match=message):
            list(MMERealWorldDriving().samples("test", listing(tmp_path, *items)))


def test_real_records(shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "data" / "mme-realworld-driving" / "output_test_template.json"
    (tmp_path / "MME_RealWorld.json").write_bytes(source.read_bytes())
    (record,) = records_of(MMERealWorldDriving(), "test", tmp_path, "D")
    assert record.scores == {"accuracy": 1.0}
