"""What values need of Redis: dictionaries, fences and their sweep, invalidations, the way back to plain ones."""
