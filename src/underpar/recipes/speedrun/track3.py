"""Track 3."""
