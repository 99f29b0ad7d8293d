"""How a judge is asked (`--judge-gen`), and a judge that is of no use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import Answer, Server, completion

from evalkit.cli.main import invoke
from evalkit.errors import UsageError
from evalkit.judge import Judge
from evalkit.judge_settings import JudgeSettings
from evalkit.pipeline.job import make_job
from evalkit.pipeline.options import RunOptions
from evalkit.store import load_run
from evalkit.task import JudgeQuestion

SECRET = "sk-very/secret+word"
QUESTION = JudgeQuestion("be just", "rate", temperature=0.6, max_tokens=64)


def body(model: str, *items: str) -> dict[str, Any]:
    return JudgeSettings.parse(model, items).body(model, QUESTION)


def test_a_judge_is_asked_as_the_protocol_says_unless_it_reasons() -> None:
    plain = body("gpt-4o-mini")
    assert plain["temperature"] == 0.6 and plain["max_tokens"] == 64
    thinking = body("gpt-5-mini")
    assert "temperature" not in thinking and "max_tokens" not in thinking
    assert thinking["max_completion_tokens"] == 4096  # its thoughts count
    assert body("o3", "max_new_tokens=9000")["max_completion_tokens"] == 9000
    assert JudgeSettings.parse("o3", ()).to_json()["least_tokens"] == 4096


def test_settings_of_a_judge() -> None:
    found = body("m", "temperature=0", "seed=3", "omit=max_tokens", 'extra_body={"reasoning_effort": "low"}')
    assert found["temperature"] == 0 and found["seed"] == 3 and found["reasoning_effort"] == "low"
    assert "max_tokens" not in found
    for item, said in (
        ("wrokers=3", "a judge has"),
        ("temperature=x", "write a number"),
        ("x", "KEY=VALUE"),
    ):
        with pytest.raises(UsageError, match=f"--judge-gen.*{said}"):
            JudgeSettings.parse("m", [item])


class JudgedRun:
    """`evalkit run` of answers that only a judge can read, and a judge."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.server = Server()
        self.server.behave = lambda body, attempt: completion("A")
        job = make_job("ai2d", RunOptions("", split="miniature", limit=6, protocol="vlmevalkit"))
        rows = [{"id": sample.id, "text": "I am in two minds"} for sample in job.samples]
        self.predictions = folder / "answers.jsonl"
        self.predictions.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.err = ""
        self.runs: list[dict[str, Any]] = []

    def __call__(self, *more: str, command: str = "run") -> int:
        self.capsys.readouterr()
        fixed = ["--judge", self.server.url, "--judge-model", "gpt-5", "--json", *more]
        if command == "run":
            fixed += ["-m", f"predictions:{self.predictions}", "-t", "ai2d", "--split", "miniature"]
            fixed += ["--limit", "6", "--protocol", "vlmevalkit", "-o", str(self.folder / "runs")]
        status = invoke([command, *fixed])
        out, self.err = self.capsys.readouterr()
        self.runs = json.loads(out)["runs"] if out else []
        return status

    def written(self) -> str:
        files = [path for path in (self.folder / "runs").rglob("*") if path.is_file()]
        return self.err + "".join(path.read_bytes().decode("latin-1") for path in files)


@pytest.fixture
def judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[JudgedRun]:
    for name in ("EVALKIT_JUDGE_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    backoff = dict(Judge.__init__.__kwdefaults__) | {"backoff": 0.001}
    monkeypatch.setattr(Judge.__init__, "__kwdefaults__", backoff)
    run = JudgedRun(tmp_path, capsys)
    yield run
    run.server.close()


def test_a_judge_that_answers_stands_in_manifest_and_signature(judged: JudgedRun) -> None:
    headers = json.dumps({"X-Key": SECRET})
    assert judged("--judge-gen", f"extra_headers={headers}", "--judge-gen", "seed=7") == 0
    assert judged.server.headers[-1]["X-Key"] == SECRET and SECRET not in judged.written()
    assert judged.server.bodies[-1]["seed"] == 7 and "temperature" not in judged.server.bodies[-1]
    (run,) = judged.runs
    assert run["judge"]["failed"] == 0 and run["judge"]["asked"] == run["judge"]["sent"] > 0
    assert "|judge:gpt-5[seed=7]|" in run["signature"]
    judge = load_run(run["run"]).manifest["judge"]
    assert judge["request"]["preset"] and judge["request"]["extra_headers"] == ["X-Key"]
    asked, value = len(judged.server.bodies), run["metrics"]["accuracy"]["value"]
    assert invoke(["score"]) == 2  # of nothing
    assert invoke(["score", run["run"]]) == 0  # its replies are known, and by the same settings
    assert load_run(run["run"]).summary["metrics"]["accuracy"]["value"] == value  # type: ignore[index]
    assert len(judged.server.bodies) == asked
    assert judged("--judge-gen", "seed=8") == 0 and len(judged.server.bodies) == 2 * asked


TROUBLES: dict[str, tuple[Answer, int]] = {
    "a parameter": ((400, {"error": "Unsupported parameter: 'seed'"}), 1),
    "refused": (completion(None, "content_filter"), 1),
    "thinking to the end": (
        (
            200,
            {"choices": [{"message": {"content": "", "reasoning": "hm"}, "finish_reason": "length"}]},
        ),
        1,
    ),
    "a wrong key": ((401, {"error": "no"}), 0),
    "trouble": ((500, {"error": "no"}), 2),
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("command", ["run", "score"])
def test_a_judge_that_answers_nothing_ends_with_4(trouble: str, command: str, judged: JudgedRun) -> None:
    answer, attempts = TROUBLES[trouble]
    arguments: list[str] = []
    if command == "score":
        assert judged() == 0
        arguments = [judged.runs[0]["run"]]
        (Path(arguments[0]) / "judge.jsonl").unlink()
        judged.server.bodies.clear()
    judged.server.behave = lambda body, attempt: answer
    assert judged(*arguments, "--judge-gen", "attempts=2", command=command) == 4
    (run,) = judged.runs
    assert run["judge"]["failed"] == run["judge"]["asked"] > 0
    assert "the judge gpt-5 gave 0 of" in judged.err and run["judge"]["reason"] in judged.err
    if attempts:
        assert len(judged.server.bodies) == attempts * run["judge"]["asked"]
        assert run["judge"]["again"] == (attempts - 1) * run["judge"]["asked"]
    judged.server.behave = lambda body, attempt: completion("A")
    assert judged(*arguments, command=command) == 0  # nothing of it was kept


def test_one_reply_that_is_missing_is_said_and_is_no_failure(
    judged: JudgedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    first = iter([(400, {"error": "too long"})])
    judged.server.behave = lambda body, attempt: next(first, completion("A"))
    assert judged() == 0
    (run,) = judged.runs
    assert run["judge"]["failures"] == {"judge": 1}
    assert invoke(["show", run["run"]]) == 0
    assert "JUDGE: gpt-5 gave" in capsys.readouterr().out


def test_settings_without_a_judge_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "-m", "predictions:x", "-t", "ai2d", "--split", "miniature", "--judge-gen", "seed=1"]
    assert invoke(arguments) == 2 and "--judge-gen has no meaning" in capsys.readouterr().err
    arguments += ["--judge", "ftp://x", "--judge-model", "m"]
    assert invoke(arguments) == 2 and "--judge: not an http address" in capsys.readouterr().err


def test_a_gate_whose_judge_answers_nothing_ends_with_4(judged: JudgedRun) -> None:
    assert judged() == 0
    runs = judged.folder / "runs"
    assert invoke(["baseline", "set", "main", judged.runs[0]["run"], "-o", str(runs)]) == 0
    policy = judged.folder / "policy.toml"
    policy.write_text(
        'baseline = "main"\ntasks = ["ai2d@miniature"]\n[run]\nprotocol = "vlmevalkit"\nlimit = 6\n'
        f'judge = "{judged.server.url}"\njudge_model = "gpt-5"\n'
    )
    other = judged.folder / "others.jsonl"
    other.write_text(judged.predictions.read_text().replace("two minds", "three minds"))
    fixed = ["check", "-m", f"predictions:{other}", "--policy", str(policy), "-o", str(runs)]
    judged.server.behave = lambda body, attempt: completion(None, "content_filter")
    assert invoke(fixed) == 4
    assert "the judge gpt-5 gave 0 of" in judged.capsys.readouterr().err
