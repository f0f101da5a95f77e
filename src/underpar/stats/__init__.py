"""Tests and intervals for few seeds. Imports no torch."""
