"""A client's connection: what it says, where that goes, and what it has still to be sent."""
