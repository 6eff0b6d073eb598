"""Pre-training of a small latent diffusion model: text tower, autoencoder, noise predictor."""
