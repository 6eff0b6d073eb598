"""Federated learning guided by the semantics of a frozen diffusion model, in JAX."""

__version__ = "0.1.0"
