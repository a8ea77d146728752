"""Tests of Respite; the folders mirror `proxy/`."""
