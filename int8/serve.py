"""``int8 serve``: the example service of the checkout."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from artefacts.command import run_command
from artefacts.errors import UnsupportedError
from artefacts.libraries import require

__all__ = ["main"]

PROGRAM = Path(__file__).parents[1] / "examples" / "04_fastapi_service" / "app.py"


def main(argv: Sequence[str], prog: str = "int8 serve") -> int:
    """Serve until SIGTERM or Ctrl-C; 2 bad input or environment."""
    return run_command(lambda: _serve(argv, prog), debug=False)


def _serve(argv: Sequence[str], prog: str) -> int:
    if not PROGRAM.is_file():
        raise UnsupportedError(
            f"{PROGRAM} is not there, expected a checkout: the service is one of its examples; "
            "clone the project, or serve with engines.EnginePool or int8 export-triton"
        )
    require("fastapi", extra="serve")
    require("uvicorn", extra="serve")
    sys.argv = [prog, *argv]
    sys.path.insert(0, str(PROGRAM.parent))  # as Python does for a program; runpy for folders only
    try:
        runpy.run_path(str(PROGRAM), run_name="__main__")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 2
    return 0
