"""The simulation: one compiled round, and the loop around it."""
