"""Optimisers by parameter role, and schedules as pure functions of progress."""
