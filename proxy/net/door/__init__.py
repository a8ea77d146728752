"""How clients come in: the listening sockets and who owns them, handshakes, logins, limits; how doors are closed."""
