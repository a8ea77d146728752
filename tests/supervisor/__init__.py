"""Several workers: what can be tested without starting one."""
