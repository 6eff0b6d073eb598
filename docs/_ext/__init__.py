"""The site's extensions of Sphinx, and the texts that are made of the code."""
