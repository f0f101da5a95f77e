"""Predictors of others behind the interface that the probes see: Python objects and commands, each in a jail."""
