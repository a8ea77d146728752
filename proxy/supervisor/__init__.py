"""Several worker processes behind one address: start, restarts, one view of their figures, one stop.

parent.py      serves no client: addresses, embedded Redis, admin port, signals
  host.py        answers the admin port, and clients' own questions, for all workers (core/merge.py joins)
  fleet.py       a seat a worker: starts it, notices that it died, starts another
  shares.py      their part of each limit; the addresses that they share are net/door/addresses.py
      |
channel.py     questions and answers over a socket pair, both ways
      |
child.py       the worker's process: net/worker.py as ever
  duties.py      what it answers the parent, and asks it
"""
