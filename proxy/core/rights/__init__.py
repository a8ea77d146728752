"""Who may do what, and how much of it: commands, RESPITE, logins, rates. Decisions only; sockets are `net`'s."""
