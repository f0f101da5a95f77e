"""Scoring: bits and bytes, every token exactly once."""
