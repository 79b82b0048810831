"""The simulator's fast path: the same decisions as the coordinator's, compiled, for millions of rounds.

Needs numba (the extra `sim`); nothing outside this package and its callers imports it.
"""
