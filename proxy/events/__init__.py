"""Events: what a message of the broker means for keys. Pure: knows no broker, no Redis, no clock."""
