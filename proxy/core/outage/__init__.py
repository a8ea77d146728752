"""What happens while Redis is away, or slow: who notices, what is served instead, and how it ends."""
