"""What a key and its value are to Respite: which class a key has, and what globs say about keys."""
