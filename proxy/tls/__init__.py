"""TLS of every side: contexts made from files, anew when the files change, and how long certificates still hold."""
