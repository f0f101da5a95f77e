"""A clean process that re-measures what a run claims. Never imports train, optim or recipes."""
