"""The decisions: what a command means, who is answered from where, what must be dropped."""
