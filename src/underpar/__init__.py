"""underpar: train the best language model a budget allows, and prove it."""

__version__ = "0.1.0"
