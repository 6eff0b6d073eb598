"""The choice of lowering and chunk by a short measurement."""
