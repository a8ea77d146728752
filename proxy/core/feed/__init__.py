"""The change feed: who listens to what, and what each of them is still to be told. Nothing here waits."""
