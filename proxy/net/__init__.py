"""Sockets: the reactor, clients, upstream links. The only place bytes enter and leave."""
