"""The list of checks, in the order in which a verdict reports them. Each compares measured facts with a rule or a claim."""

from underpar.referee.checks import size, text, score, causality, predictor, process, program, data  # noqa: F401, I001 - registers them, in order
from underpar.referee.checks.registry import CHECKS, Check, Finding, check, run_checks

__all__ = ["CHECKS", "Check", "Finding", "check", "run_checks"]
