"""AMQP 0-9-1 on trio: the connection to the broker, and what Respite does with it."""
