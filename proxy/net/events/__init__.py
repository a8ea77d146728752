"""What events need of Redis: made true, their gaps made up for, the outbox of changes."""
