"""`python -m evalkit_leaderboard`: Streamlit's own command, with the app's libraries and runs read meanwhile.

Streamlit loads a script when its first visitor comes; who started the app should not wait for that.
"""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path


def _read_ahead(runs: Path) -> None:
    from evalkit_leaderboard import app, context

    try:
        context.open_context(runs, Path(app.__file__).parent).matrix  # noqa: B018
    except Exception as error:  # the first visitor is told
        logging.getLogger(__name__).info("reading ahead: %s", error)


def main() -> None:
    """Serve; the arguments are those of `streamlit run`."""
    arguments = sys.argv[1:]
    runs = Path(arguments[arguments.index("--runs") + 1])
    threading.Thread(target=_read_ahead, args=(runs,), daemon=True).start()
    from streamlit.web.cli import main as streamlit

    app = Path(__file__).with_name("app.py")
    streamlit(["run", str(app), *arguments], prog_name="streamlit")


if __name__ == "__main__":
    main()
