"""The README for a package index: links that are relative here lead to the home page of pyproject.toml."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent


def whole_links(readme: str, home: str) -> str:
    """A Markdown text whose relative links to images and pages are whole addresses."""
    readme = re.sub(r"(!\[[^\]]*\]\()(?!https?://|#)", rf"\g<1>{home}/raw/main/", readme)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?://|#)", rf"\g<1>{home}/blob/main/", readme)


if __name__ == "__main__":
    found = re.search(r'^Homepage = "(.+)"$', (HERE / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert found is not None, "pyproject.toml names no Homepage"
    setup(
        long_description=whole_links((HERE / "README.md").read_text(encoding="utf-8"), found.group(1)),
        long_description_content_type="text/markdown",
    )
