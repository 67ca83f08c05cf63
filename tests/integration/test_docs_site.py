"""The documentation site builds strictly, and its notebooks run from top to bottom."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ROOT / ".venv-docs" / "bin" / "python"
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))

EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], 4)
NotebookClient(book, timeout=600, kernel_name="python3").execute()
nbformat.write(book, sys.argv[2])
"""


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter that has mkdocs and nbclient."""
    if OURS.is_file():
        return str(OURS)
    if importlib.util.find_spec("mkdocs") and importlib.util.find_spec("nbclient"):
        return sys.executable
    pytest.skip("mkdocs is not installed; `make docs` makes .venv-docs")


def built(python: str, folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=folder,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_site_builds_without_a_broken_link(python: str, tmp_path: Path) -> None:
    done = built(python, ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in tmp_path.rglob("*.html")}
    sources = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert {path.with_suffix(".html").as_posix() for path in sources} <= pages
    reference = (tmp_path / "site" / "reference.html").read_text(encoding="utf-8")
    for name in ("build_engine.build", "engines.loading.load", "artefacts.errors.DataError"):
        assert f'id="{name}"' in reference, name
    # Files of the repository are named, not linked to where nothing is.
    deployment = (tmp_path / "site" / "deployment.html").read_text(encoding="utf-8")
    assert 'href="../' not in deployment.split("<article")[1].split("</article")[0]
    assert "engines/manifest.schema.json" in deployment


def test_a_broken_link_or_anchor_fails(python: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    page = tmp_path / "docs" / "index.md"
    page.write_text(page.read_text(encoding="utf-8") + "\n[x](data.md#nowhere) [y](no.md)\n")
    (tmp_path / "docs" / "reference.md").write_text("# Python API\n")
    done = built(python, tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "no.md" in done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, python: str, tmp_path: Path) -> None:
    for name in ("build_engine.py", "examples"):  # what makes a folder the root of the checkout
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [python, "-c", EXECUTE, str(notebook), str(tmp_path / "run.ipynb")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "run.ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(cell["execution_count"] for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_what_it_printed(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["quick_start", "where_the_error_is"]
