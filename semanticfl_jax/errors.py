"""What is raised on purpose: errors that the user can mend, and `Stopped`."""

from typing import ClassVar

#: Exit status of a command that was interrupted, as shells have it.
INTERRUPTED = 130


class SemanticFLError(ValueError):
    """An error that the user can mend; the message says how."""

    #: With which a command ends.
    exit_status: ClassVar[int] = 2


class ConfigError(SemanticFLError):
    """A configuration field has a wrong name or value; the message names it and what is allowed."""


class DirectoryInUseError(SemanticFLError):
    """Another process writes to the directory; the message names it."""


class DivergedError(SemanticFLError):
    """A loss, an update or a metric is not finite, and `on_divergence` is "stop"."""

    exit_status = 3


class Stopped(Exception):
    """A signal asked to stop; what was done is saved, where a run has a directory."""


class MissingDependencyError(SemanticFLError, ImportError):
    """A library is missing that only some runs need; the message names its extra."""


class MissingFileError(SemanticFLError, FileNotFoundError):
    """A file that a run needs is not there; the message says where it was looked for."""
