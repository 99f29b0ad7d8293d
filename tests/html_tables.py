"""Tables in pages of the leaderboard, as HTML."""

from __future__ import annotations

import re


def uneven(content: str) -> list[str]:
    """The headings of tables of which a row has another number of cells, unless a row is one cell alone."""
    found = []
    for table in re.findall(r"<table.*?</table>", content, re.DOTALL):
        head, _, body = table.partition("</thead>")
        columns = len(re.findall(r"<th[ >]", head))
        widths = {len(re.findall(r"<t[hd][ >]", row)) for row in body.split("<tr")[1:]}
        if widths - {1, columns}:
            found.append(re.sub(r"<[^>]+>", " ", head))
    return found
