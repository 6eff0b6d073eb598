"""The errors of the package that a user can mend."""


class SemanticFLError(ValueError):
    """What a user can mend; the message says how."""


class MissingDependencyError(SemanticFLError, ImportError):
    """A library is missing that only some runs need; the message names the extra that brings it."""
