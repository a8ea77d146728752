"""What is taken in memory while Redis is away: commands on strings, hashes and lives, and how Redis hears of them."""
