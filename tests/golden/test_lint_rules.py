"""The table of lint rules in docs/models.md is what the linter has; --update-golden rewrites it."""

from __future__ import annotations

from pathlib import Path

from quantization.lint.report import lint_table

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- rules: begin -->\n", "<!-- rules: end -->\n"


def test_table_of_the_document(update_golden: bool) -> None:
    before, rest = DOCUMENT.read_text(encoding="utf-8").split(BEGIN)
    table, after = rest.split(END)
    if update_golden:
        table = lint_table()
        DOCUMENT.write_text(f"{before}{BEGIN}{table}{END}{after}", encoding="utf-8")
    assert table == lint_table()
