"""Federated learning guided by the semantics of a frozen diffusion model, in JAX."""

__version__ = "0.2.0"
