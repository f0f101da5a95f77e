"""Runs recipes: one through all its stages, or many."""
