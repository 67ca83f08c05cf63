"""Findings of the linter as text for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import groupby

from quantization.lint.lint import RULES, Finding

__all__ = ["lint_json", "lint_table", "lint_text"]

_SHOWN = 5  # nodes of one rule that are listed; the rest is counted


def lint_text(name: str, findings: Sequence[Finding], *, verbose: bool = False) -> str:
    """A paragraph for each broken rule: id, nodes, why it matters, the mend.

    Args:
        name: of the model, for the first line.
        findings: from ``lint``.
        verbose: list every node, not the first few.
    """
    if not findings:
        return f"{name}: nothing to mend"
    counts = {kind: sum(f.severity == kind for f in findings) for kind in _SEVERITIES}
    shown = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    lines = [f"{name}: {shown}"]
    for _, group in groupby(findings, key=lambda finding: finding.rule):
        nodes = list(group)
        first = nodes[0]
        lines += ["", f"{first.severity}: {first.rule} ({len(nodes)})", f"  why:  {first.why}"]
        lines += [f"  mend: {first.mend}", f"  see:  {first.link}"]
        listed = nodes if verbose else nodes[:_SHOWN]
        lines += [f"  - {finding.node or 'graph'}: {finding.found}" for finding in listed]
        if len(listed) < len(nodes):
            lines.append(f"  - and {len(nodes) - len(listed)} more (--verbose lists them)")
    return "\n".join(lines)


def lint_json(name: str, findings: Sequence[Finding]) -> str:
    """The same as a JSON object: ``{"model": ..., "builds": ..., "findings": [...]}``."""
    content = {
        "model": name,
        "builds": not any(finding.severity == "fatal" for finding in findings),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def lint_table() -> str:
    """A Markdown table of all rules: severity, why, mend, link."""
    lines = ["| rule | severity | why | mend |", "|---|---|---|---|"]
    for name, rule in RULES.items():
        lines.append(f"| [`{name}`]({rule.link}) | {rule.severity} | {rule.why} | {rule.mend} |")
    return "\n".join([*lines, ""])


_SEVERITIES = ("fatal", "slow", "accuracy")
