"""Everything that can fall does, on a schedule, while real clients work and every answer of theirs is judged.

    schedule.py   what falls when: the same for the same seed          world.py    servers, proxies, relays, a broker
    faults.py     how it falls and how it gets up again                namespace.py  where packets can be dropped
    clients.py    six kinds of clients, alike from outside             node_client.mjs  the two of Node
    traffic.py    what they do; fallbacks.py who must notice nothing, consumers.py and listeners.py who waits
    ledger.py     how every request ended                              claims.py     what must be in Redis after it all
    checks.py     what is wrong                                        report.py     a table
    sabotage.py   proxies that break a promise, for a run that must notice

`python -m tests.e2e.chaos --seconds 60 --every 10 --seed 1` runs it; a failing run prints the line that repeats it.
"""
