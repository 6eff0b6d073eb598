"""Clients that do not do as they should, one file an attack."""
