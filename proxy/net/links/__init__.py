"""Links to Redis that carry what clients ask: dialled, shared, pinned, and held back while Redis is away."""
