"""Events end to end: a publisher, a real broker, two proxies, Redis, and everything that can happen to them."""
