"""The speedrun: the shortest time to a validation loss. Records and their steps, each the difference from its parent."""

from underpar.recipes.speedrun import record67, station, track3

__all__ = ["record67", "station", "track3"]
