"""The committed results, and the README's table that is made of them."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import jsonschema
import pytest

from artefacts.errors import ArtefactError
from benchmarks.__main__ import main
from benchmarks.report.results import insert_results, render_results

ROOT = Path(__file__).parents[3]
STORED = sorted((ROOT / "benchmarks" / "results").glob("*.json.gz"))
SCHEMA = ROOT / "benchmarks" / "report" / "report.schema.json"
LIMIT_BYTES = 300_000


def test_the_readme_says_what_the_results_say() -> None:
    """On a failure: ``python -m benchmarks table benchmarks/results --into README.md``."""
    page = (ROOT / "README.md").read_text()
    assert insert_results(page, render_results([ROOT / "benchmarks" / "results"])) == page


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_a_stored_result_is_whole_small_and_tells_no_secrets(path: Path) -> None:
    text = gzip.decompress(path.read_bytes()).decode()
    document = json.loads(text)
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert path.stat().st_size < LIMIT_BYTES
    for system in document["systems"]:
        assert sum(map(len, system["latency"]["rounds_ms"])) >= 100, "no raw samples"
        assert not Path(system["path"]).is_absolute()
    # Neither folders of a machine nor names of hosts: files are named as from the repository.
    words = [*document["command"].split(), document["data"]]
    words += [value for facts in document["environment"].values() for value in facts.values()]
    assert not [word for word in words if re.search(r"(^|[\s=])/|\\\\|@\w", word)]


def test_there_is_a_result_to_show() -> None:
    assert STORED


def test_a_table_goes_between_its_markers(tmp_path: Path) -> None:
    page = "# Title\n\n<!-- results -->\nold\n<!-- /results -->\n\nmore\n"
    once = insert_results(page, "| new |\n")
    assert once == "# Title\n\n<!-- results -->\n\n| new |\n\n<!-- /results -->\n\nmore\n"
    assert insert_results(once, "| new |\n") == once
    for broken in ("# Title\n", "<!-- results -->\n", "<!-- /results -->\n<!-- results -->\n"):
        with pytest.raises(ArtefactError, match="no lines <!-- results -->"):
            insert_results(broken, "| new |")


def test_the_command_writes_the_table_into_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "README.md"
    page.write_text("<!-- results -->\n<!-- /results -->\n")
    words = ["table", str(ROOT / "benchmarks" / "results")]
    assert main([*words, "--into", str(page)]) == 0
    assert main(words) == 0
    table = capsys.readouterr().out.removeprefix(f"wrote {page}\n")
    assert page.read_text() == f"<!-- results -->\n\n{table.strip()}\n\n<!-- /results -->\n"
    page.write_text("no markers")
    assert main([*words, "--into", str(page)]) == 2
