"""The invalidation link, and all that is heard on it: pushes, PONGs, what the server is, what other proxies tell."""
