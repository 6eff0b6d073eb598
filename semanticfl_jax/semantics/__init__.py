"""Semantic anchors: how they are made of diffusion features, and the losses that use them."""
