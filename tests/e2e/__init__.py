"""End-to-end tests: real servers, a real Respite process, real clients."""
