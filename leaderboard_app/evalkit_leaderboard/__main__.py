"""`python -m evalkit_leaderboard`: Streamlit's own command, with the app's libraries and runs read meanwhile.

Streamlit loads a script when its first visitor comes; who started the app should not wait for that. The
server ends with the process that started it, even where that one was killed.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

#: Seconds between two looks at the process that started this one, and seconds to end in once it is gone.
_LOOK, _GRACE = 1.0, 5.0


def _read_ahead(runs: Sequence[Path]) -> None:
    from evalkit_leaderboard import app, context

    try:
        context.open_context(runs, Path(app.__file__).parent).matrix  # noqa: B018
    except Exception as error:  # the first visitor is told
        logging.getLogger(__name__).info("reading ahead: %s", error)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)  # a connection that never closes holds the server


def main() -> None:
    """Serve; the arguments are those of `streamlit run`."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    arguments = sys.argv[1:]
    runs = [Path(after) for flag, after in pairwise(arguments) if flag == "--runs"]
    threading.Thread(target=_read_ahead, args=(runs,), daemon=True).start()
    from streamlit.web.cli import main as streamlit

    app = Path(__file__).with_name("app.py")
    streamlit(["run", str(app), *arguments], prog_name="streamlit")


if __name__ == "__main__":
    main()
