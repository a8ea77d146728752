"""RESP bytes: requests, replies, the command table. Plain functions of bytes, no sockets."""
