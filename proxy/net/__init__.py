"""Sockets: the only place bytes enter and leave.

    strangers --door--> clients --> core --> links --> Redis
                           ^                            |
                        core <-- invalidation, changes <-

The reactor polls them all; a worker wires the rooms together. `values` and `events` are what those need of Redis.
"""
