"""Entries of the registries that come with the project: other tests register their own."""


def built_in(registry):
    """The names of a registry's own entries, in order."""
    return [name for name, entry in registry.items() if entry.source.startswith("semanticfl_jax.")]
