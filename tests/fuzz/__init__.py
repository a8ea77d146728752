"""A fuzzer of our own for whatever reads bytes of others: seeded, and guided by the lines that an input reaches."""
