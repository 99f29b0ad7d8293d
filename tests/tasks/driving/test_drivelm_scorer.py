"""The DriveLM scorer against the challenge's evaluation written out plainly."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_answers import GivenReplies, score_texts

from evalkit.contracts import Failure, Record, Response, Sample
from evalkit.metrics.ptb import tokenize
from evalkit.statistics import estimate_all
from evalkit.task import failed_record
from evalkit_tasks.driving import drivelm_metrics
from evalkit_tasks.driving.drivelm import DriveLM
from evalkit_tasks.driving.drivelm_scorer import match

TASK = DriveLM()


# The challenge's evaluation, written out -----------------------------------------------------------------


def reference_match(answer: str, reference: str) -> tuple[list[list[float]], float]:
    given = [float(text) for text in re.findall(r"\d+\.\d+", answer)]
    if len(given) % 2:
        given = given[:-1]
    left = np.array([float(text) for text in re.findall(r"\d+\.\d+", reference)]).reshape(-1, 2)
    total, hits, misses, found = len(left), 0, 0, []
    for point in np.array(given).reshape(-1, 2):
        best, where = float("inf"), None
        for i in range(len(left)):
            with np.errstate(invalid="ignore"):
                distance = np.sum(np.abs(point - left[i]))
            if distance < best:
                best, where = distance, i
        if best < 16:
            hits += 1
            found.append(list(left[where]))
            left = np.delete(left, where, axis=0)
        else:
            misses += 1
    precision = hits / (hits + misses + 1e-8)
    recall = hits / (hits + (total - hits) + 1e-8)
    return found, 2 * precision * recall / (precision + recall + 1e-8)


def reference_scores(frames: Sequence[Frame], ratings: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    """What the challenge prints for these frames; raises where it does."""
    accuracy, gpt, language, matched = [], [], [], []
    for questions in frames:
        graph: list[list[float]] = []
        for i, (question, tags, truth, answer) in enumerate(questions):
            if i == 0:
                graph = reference_match(answer, truth)[0]
            else:
                numbers = np.array([float(n) for n in re.findall(r"\d+\.\d+", question)]).reshape(-1, 2)
                if not all(list(pair) in graph for pair in numbers):
                    continue
            if 0 in tags:
                accuracy.append(1.0 if answer == truth else 0.0)
            if 1 in tags:
                gpt.append(ratings[answer, truth])
            if 2 in tags:
                language.append((answer, truth))
            if 3 in tags:
                matched.append((reference_match(answer, truth)[1] * 100, ratings[answer, truth]))
    scores: dict[str, Any] = {"accuracy": sum(accuracy) / len(accuracy), "chatgpt": sum(gpt) / len(gpt)}
    f1 = sum(f1 for f1, _ in matched) / len(matched)
    scores["match"] = (f1 + sum(rating for _, rating in matched) / len(matched)) / 2.0
    scores["match_f1"] = f1 / 100
    captions = reference_language(language)
    scores |= captions
    total = 0.0
    for i, value in enumerate(captions.values()):
        total += value / 4 / 3 if i < 4 else value / 3 if i == 4 else value / 10 / 3
    scores["language"] = total
    parts = [scores["chatgpt"] / 100, total, scores["match"] / 100, scores["accuracy"]]
    scores["final_score"] = sum(x * y for x, y in zip(parts, [0.4, 0.2, 0.2, 0.2], strict=True))
    scores["n"] = (len(accuracy), len(gpt), len(language), len(matched))
    return scores


def reference_language(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    answers = {i: [text] for i, text in enumerate(tokenize([answer for answer, _ in pairs]))}
    truths = {i: [text] for i, text in enumerate(tokenize([truth for _, truth in pairs]))}
    bleu = Bleu(4).compute_score(truths, answers, verbose=0)[0]
    rouge, cider = Rouge().compute_score(truths, answers)[0], Cider().compute_score(truths, answers)[0]
    return {f"bleu_{n}": bleu[n - 1] for n in range(1, 5)} | {"rouge_l": float(rouge), "cider": float(cider)}


# The same by the task ------------------------------------------------------------------------------------

#: Question, tags, reference and answer of each question of a frame.
Frame = Sequence[tuple[str, tuple[int, ...], str, str]]


#: The same with tags or reference that may not be public.
Row = tuple[str, Sequence[int] | None, str | None, str]


def sample_of(frame: int, number: int, row: Row) -> Sample:
    question, tags, truth, _ = row
    return Sample(
        id=f"scene_{frame}_{number}",
        turns=(question,),
        images=(),
        target=truth,
        cluster=f"scene_{frame}",
        data={"question": question, "tags": None if tags is None else list(tags)},
    )


def scored(frames: Sequence[Sequence[Row]], judge: GivenReplies | None = None) -> list[Record]:
    """The records of frames whose questions are numbered from 0."""
    rows = [(f, n, row) for f, frame in enumerate(frames) for n, row in enumerate(frame)]
    samples = [sample_of(*place) for place in rows]
    texts = {sample.id: row[3] for sample, (_, _, row) in zip(samples, rows, strict=True)}
    return score_texts(TASK, samples, texts, judge)


def rated(frames: Sequence[Frame], ratings: Mapping[tuple[str, str], float]) -> list[Record]:
    """The records with a judge that gives these ratings, by answer and reference."""
    replies = {
        f"scene_{f}_{n}": repr(ratings.get((answer, truth)))
        for f, frame in enumerate(frames)
        for n, (_, _, truth, answer) in enumerate(frame)
    }
    return scored(frames, GivenReplies(replies))


def estimates(records: Sequence[Record]) -> dict[str, Any]:
    return estimate_all(TASK.metrics(), records, resamples=100)


POINTS = {"a": (100.0, 200.0), "b": (110.0, 200.0), "c": (800.5, 450.5), "d": (0.0, 0.1)}


def tag_text(name: str, dx: float = 0.0) -> str:
    x, y = POINTS[name]
    return f"<c1,CAM_BACK,{x + dx},{y}>"


@st.composite
def frames(draw: st.DrawFn) -> list[list[tuple[str, tuple[int, ...], str, str]]]:
    """Frames of five to eight questions, all tags among them, coordinates near and far."""
    tags = st.builds(tag_text, st.sampled_from(list(POINTS)), st.sampled_from([0.0, 3.0, 15.9, 16.0, 40.0]))
    texts = st.lists(
        st.one_of(
            tags, st.sampled_from(["a car", "It's red.", "5", "12.5", "", "No.", "turn left, then go"])
        ),
        max_size=5,
    ).map(" ".join)
    exact = st.builds(tag_text, st.sampled_from(list(POINTS)))
    references = st.lists(
        st.one_of(exact, st.sampled_from(["a car", "No.", "A", "go"])), min_size=1, max_size=4
    )
    truths = references.map(" ".join)
    found = []
    for _ in range(draw(st.integers(1, 3))):
        first = draw(truths)
        rows = [("What is important?", (2,), first, draw(st.one_of(texts, st.just(first))))]
        for kind in draw(st.permutations([(0,), (1,), (3,), (0, 1), (2, 3), ()])):
            truth = draw(truths)
            question = draw(st.one_of(exact, st.just("What now?"), st.builds("{} {}".format, exact, exact)))
            rows.append((question, kind, truth, draw(st.one_of(texts, st.just(truth)))))
        found.append(rows)
    return found


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(frames())
def test_every_value_is_the_challenge_s(
    generated: list[list[tuple[str, tuple[int, ...], str, str]]],
) -> None:
    ratings = {
        (answer, truth): float(len(answer) * 7 % 101) for rows in generated for _, _, truth, answer in rows
    }
    mine = estimates(rated(generated, ratings))
    try:
        expected = reference_scores(generated, ratings)
    except ZeroDivisionError:
        assert mine["final_score"].value is None
        assert "graph rule leaves out all" in str(mine["final_score"].reason)
        return
    variants = {metric.name for metric in drivelm_metrics.metrics() if metric.variant}
    assert variants == {"bleu_4.nltk", "rouge_l.rouge_score"} < mine.keys()
    for name in mine.keys() - variants:
        assert mine[name].value == pytest.approx(expected[name], rel=1e-12, abs=1e-15), name
    assert tuple(mine[name].n for name in ("accuracy", "chatgpt", "cider", "match_f1")) == expected["n"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_matching_is_the_challenge_s(data: st.DataObject) -> None:
    numbers = st.one_of(
        st.sampled_from(
            ["100.0", "100", "116.0", "115.9", "-100.0", "1.5.2", "9" * 400 + ".0", "٣.٤", ".5", "5."]
        ),
        st.floats(0, 60).map(lambda value: f"{value:.1f}"),
    )
    answer = " ".join(data.draw(st.lists(numbers, max_size=9)))
    reference = " ".join(
        data.draw(st.lists(st.tuples(numbers, numbers), max_size=4).map(lambda p: [n for q in p for n in q]))
    )
    if len(re.findall(r"\d+\.\d+", reference)) % 2:
        reference += " 1.0"
    found, f1 = match(answer, reference)
    expected, expected_f1 = reference_match(answer, reference)
    assert [list(point) for point in found] == expected
    assert f1 == expected_f1


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        ("<c1,CAM_BACK,100.0,100.0>", "<c1,CAM_FRONT,100.0,100.0>", 1.0),
        ("<c1,CAM_FRONT,100,100>", "<c1,CAM_FRONT,100.0,100.0>", 0.0),
        ("110.0,105.9", "100.0,100.0", 1.0),
        ("110.0,106.0", "100.0,100.0", 0.0),
        ("100.0,100.0 and 100.0,100.0", "100.0,100.0", 2 / 3),
        ("-100.0,100.0", "100.0,100.0", 1.0),
        ("100.0,100.0,5.0", "100.0,100.0", 1.0),
        # A clamped "0" is not seen, so that the pairs after it shift.
        ("<c1,CAM_FRONT,0,450.0> <c2,CAM_FRONT,100.0,100.0>", "450.0,100.0", 1.0),
        ("nothing", "100.0,100.0", 0.0),
        ("", "", 0.0),
    ],
)
def test_matching_of_hand_picked_answers(answer: str, reference: str, f1: float) -> None:
    assert match(answer, reference)[1] == pytest.approx(f1, abs=1e-7)


@pytest.mark.timeout(120)
def test_a_huge_answer_ends() -> None:
    assert match("1" * 200_000 + " 100.0,100.0", "100.0,100.0")[1] == pytest.approx(1.0, abs=1e-7)


def test_accuracy_is_exact_to_the_character() -> None:
    answers = ["A", "A.", "a", " A", "No.", "No", ""]
    truths = ["A", "A", "A", "A", "No.", "No.", ""]
    rows = [("What?", (0,), truth, answer) for truth, answer in zip(truths, answers, strict=True)]
    assert [record.scores["accuracy"] for record in scored([rows])] == [1, 0, 0, 0, 1, 0, 1]


def test_answers_in_the_model_s_coordinates_are_scored_in_camera_pixels() -> None:
    truth = "<c1,CAM_FRONT,800.0,450.0>"
    first, later = scored(
        [[("What?", (2, 3), truth, "<c1,CAM_FRONT,[500, 250]>"), (f"Is {truth}?", (0,), "No.", "No.")]]
    )
    assert first.prediction == truth
    assert first.scores["match_f1"] == pytest.approx(1.0, abs=1e-7)
    assert later.scores == {"left_out": 0.0, "accuracy": 1.0}


# What the challenge's program stops at -------------------------------------------------------------------

TAG = "<c1,CAM_BACK,100.0,200.0>"


def test_questions_about_objects_not_found_are_left_out_and_say_so() -> None:
    rows: Frame = [
        ("What?", (2,), TAG, "nothing"),
        (f"Is {TAG} a car?", (0,), "No.", "No."),
        ("What now?", (0,), "A", "A"),
    ]
    _, left_out, kept = scored([rows])
    assert left_out.data["left_out"] == "graph rule" and left_out.tags["graph"] == "left out"
    assert left_out.scores == {"left_out": 1.0}
    assert kept.tags["graph"] == "scored" and "left_out" not in kept.data
    assert estimates([left_out, kept])["accuracy"].n == 1


def test_odd_coordinates_in_a_question_leave_it_out() -> None:
    rows: Frame = [("What?", (2,), TAG, TAG), ("Is <c1,CAM_BACK,100.0,200> a car?", (0,), "No.", "No.")]
    with pytest.raises(ValueError):
        reference_scores([rows], {})
    assert scored([rows])[1].data["left_out"] == "odd coordinates"


def test_an_odd_number_in_the_reference_is_dropped() -> None:
    assert match("100.0,200.0", "100.0,200.0 and 7.5") == ([(100.0, 200.0)], pytest.approx(1.0, abs=1e-7))


@pytest.mark.parametrize("asked", [True, False])
def test_without_a_first_answer_nothing_is_found(asked: bool) -> None:
    first, second, third = (
        ("What?", (2,), TAG, TAG),
        (f"Is {TAG} a car?", (0,), "No.", "No."),
        ("What now?", (0,), "A", "A"),
    )
    samples = [sample_of(0, number, row) for number, row in enumerate((first, second, third))]
    missing = Failure("missing", "no prediction")
    texts = {"scene_0_0": missing, "scene_0_1": "No.", "scene_0_2": "A"}
    records = score_texts(TASK, samples if asked else samples[1:], texts)
    assert records[-2].data["left_out"] == "first question unanswered"
    assert records[-1].scores["accuracy"] == 1.0
    if asked:
        assert records[0] == failed_record(samples[0], Response(error=missing))


def test_a_tag_without_questions_has_no_value_but_a_reason() -> None:
    found = estimates(scored([[("What?", (2,), "a car", "a car"), (f"Is {TAG}?", (0,), "No.", "No.")]]))
    assert found["accuracy"].value is None
    assert found["accuracy"].reason == "the graph rule leaves out all 1 questions of tag accuracy"
    assert found["chatgpt"].reason == "no answered question of tag gpt"
    assert found["match"].reason == "match_f1: no answered question of tag match"
    assert found["cider"].value == 0.0 and found["cider"].n == 1


def test_without_labels_every_value_is_null() -> None:
    for value in estimates(scored([[("What?", (2,), None, "a car")]])).values():
        assert value.value is None and "not public" in str(value.reason)


def test_labels_without_tags_say_what_is_missing() -> None:
    found = estimates(scored([[("What?", None, "a car", "a car")]]))
    assert {value.reason for name, value in found.items() if name == "accuracy"} == {
        "the file does not tell which question is scored how (field tag)"
    }


def test_unknown_tags_and_none_enter_no_value() -> None:
    records = scored([[("What?", (), "A", "A"), ("What?", (7,), "A", "A")]])
    assert [record.scores for record in records] == [{"left_out": 0.0}] * 2


# The judge -----------------------------------------------------------------------------------------------

JUDGED: Frame = [
    ("What?", (2,), TAG, TAG),
    ("Which actions?", (1,), "Brake.", "Stop."),
    ("Notice what?", (3,), TAG, TAG),
    (f"Would {TAG} move?", (1,), "Yes.", "No."),
    ("Is <c2,CAM_BACK,9.0,9.0>?", (1,), "Yes.", "No."),
]


def test_the_judge_is_asked_in_the_challenge_s_words() -> None:
    judge = GivenReplies("50")
    scored([JUDGED], judge)
    assert list(judge.asked) == ["scene_0_1", "scene_0_2", "scene_0_3"]
    question = judge.asked["scene_0_1"]
    assert question.system == "an evaluator who rates my answer based on the correct answer"
    assert question.user == (
        "Rate my answer based on the correct answer out of 100, with higher scores indicating that the "
        "answer is closer to the correct answer, and you should be accurate to single digits like 62, 78, "
        "41,etc. Output the number onlyThis is the correct answer: Brake.This is my answer: Stop."
    )
    assert (question.temperature, question.max_tokens, question.numeric) == (0.6, 3000, True)


def test_without_a_judge_what_needs_one_is_null_and_the_rest_stands() -> None:
    found = estimates(scored([[*JUDGED, ("What?", (0,), "A", "A")]]))
    for name, n in (("chatgpt", 2), ("match", 1), ("final_score", 5)):
        assert (found[name].value, found[name].reason, found[name].n) == (None, "no judge given", n)
    assert found["accuracy"].value == 1.0 and found["match_f1"].value == pytest.approx(1.0, abs=1e-7)
    assert found["language"].value is not None


def test_ratings_enter_chatgpt_and_match_by_tag() -> None:
    ratings = {("Stop.", "Brake."): 60.0, (TAG, TAG): 90.0, ("No.", "Yes."): 20.5}
    records = rated([JUDGED], ratings)
    found = estimates(records)
    assert (found["chatgpt"].value, found["chatgpt"].n) == (40.25, 2)
    assert found["match"].value == pytest.approx(95.0, abs=1e-5)
    assert records[1].scores == {"left_out": 0.0, "judge_failed": 0.0, "chatgpt": 60.0}


def test_questions_the_judge_failed_on_are_counted_and_enter_no_mean() -> None:
    hm = Failure("judge", "not a number: hm")
    mixed = scored([JUDGED], GivenReplies({"scene_0_1": "80", "scene_0_2": "70", "scene_0_3": hm}))
    found = estimates(mixed)
    assert (found["chatgpt"].value, found["chatgpt"].n) == (80.0, 1)
    assert [record.scores.get("judge_failed") for record in mixed] == [None, 0.0, 0.0, 1.0, None]
    assert mixed[1].data["judge"] == "80" and mixed[3].data["judge_failure"] == "not a number: hm"
    found = estimates(scored([JUDGED], GivenReplies({"scene_0_1": hm, "scene_0_2": "well", "scene_0_3": hm})))
    assert found["chatgpt"].reason == "the judge failed on all 2 questions"
    assert found["match"].reason == "match_chatgpt: the judge failed on all 1 questions"


def test_the_final_score_of_the_challenge_s_own_example() -> None:
    """The README's sample values, put together as there."""
    final = next(metric for metric in TASK.metrics() if metric.name == "final_score")
    language = (0.04952231 + 0.00021977 + 0.00003631 + 0.00001478) / 12 + 0.08383568 / 3 + 0.09901486 / 30
    parts = np.array([65.1111, language, 28.25, 0.0])
    assert final._combine(parts) == pytest.approx(0.3240235, abs=1e-6)  # type: ignore[attr-defined]
