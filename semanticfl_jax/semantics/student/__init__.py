"""The semantic student: what the diffusion model sees in an image, in a network for a client.

images     what it is distilled on: public images, or none that are real
teacher    features of these images, whitened: its targets
training   it learns to tell the targets from the augmented images
network    the student: weights, normalisation, provenance; one file
building   all of it, unless a file has it already
"""

from semanticfl_jax.semantics.student.network import Student

__all__ = ["Student"]
