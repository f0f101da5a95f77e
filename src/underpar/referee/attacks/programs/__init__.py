"""Cheats that only a whole program can commit: what it prints, reads, ships or calls.

    python v15_double_counted.py forbidden SHARD CHARGES

Each file has a forbidden and an allowed main function and needs numpy and its neighbour common.py alone.
"""
