"""Changes of keys, heard for those who listen to the feed."""
