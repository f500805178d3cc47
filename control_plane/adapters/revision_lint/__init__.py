"""Revisions are read before they run: what would lock, rewrite, lose or leak is found."""

from control_plane.adapters.revision_lint.findings import RULES, LintFinding
from control_plane.adapters.revision_lint.linting import lint

__all__ = ["RULES", "LintFinding", "lint"]
