"""What is done in memory while Redis is away."""
