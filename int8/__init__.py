"""The installed command: one face for every command of the project, and what this machine is.

In: a subcommand and its flags. Out: a call of the command's own ``main``, or the doctor's report.
May import: artefacts, engines, benchmarks, pipeline; commands are found by their names.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
