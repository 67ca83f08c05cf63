"""Reports: one JSON document, rendered as terminal table, Markdown, CSV and HTML.

In: results of benchmarks.latency, .accuracy and .machine. Out: ``report.json``, ``report.html``.
May import: artefacts, other benchmarks packages; matplotlib in one file.
"""

from __future__ import annotations

from benchmarks.report.codec import load_report, save_report
from benchmarks.report.document import Comparison, Report, SystemReport

__all__ = ["Comparison", "Report", "SystemReport", "load_report", "save_report"]
