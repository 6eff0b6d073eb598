"""Differential privacy of clients: mechanisms, what they cost, and what each party sees."""
