"""A hook of the documentation site: links to files of the repository.

A page of the site has no repository beside it: such a link becomes its text and the path.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links out of docs/ as text with the path, as mkdocs calls it for each page."""
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def written(found: re.Match[str]) -> str:
        text, path = found[1], posixpath.normpath(posixpath.join(folder, found[2]))
        if path.startswith("docs/"):
            return found[0]
        plain = text.strip("`")
        return f"`{path}`" if plain.strip("/") in path else f"{text} (`{path}`)"

    return LINK.sub(written, markdown)
