"""The frozen diffusion model: loading a Stable Diffusion checkpoint, and features from it."""
