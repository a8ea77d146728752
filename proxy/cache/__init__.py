"""The state of L1: entries, eviction, flights. Plain synchronous Python, handed the time."""
