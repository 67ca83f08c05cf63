"""Every error a user can meet.

    BuilderError                     caught by main(), printed as one sentence, exit code 2
    ├── InputError (ValueError)      something the user gave cannot be used
    │   ├── ModelError               an ONNX file or graph
    │   ├── DataError                samples, labels, a preprocessing spec
    │   ├── ArtefactError            a file of ours that is damaged, or made for another graph or data
    │   ├── EngineError              an engine or its manifest: damaged, altered, of another target
    │   └── RequestError             the arrays handed to a loaded engine
    ├── MissingLibrary (ImportError) an optional library is not installed; names the extra
    ├── Unsupported (RuntimeError)   this machine or this library version cannot do it
    └── GateMissed (RuntimeError)    a gate was missed (accuracy, coverage, speed): exit code 1

A message says four things: the thing, what was found, what was expected, what to do.
"""

from __future__ import annotations

__all__ = [
    "ArtefactError",
    "BuilderError",
    "DataError",
    "EngineError",
    "GateMissed",
    "InputError",
    "MissingLibrary",
    "ModelError",
    "RequestError",
    "Unsupported",
]


class BuilderError(Exception):
    """Base of all errors that a user can mend; ``exit_code`` is what ``main`` returns."""

    exit_code = 2


class InputError(BuilderError, ValueError):
    """Something the user gave cannot be used."""


class ModelError(InputError):
    """An ONNX file or graph cannot be used."""


class DataError(InputError):
    """Samples, labels or a preprocessing spec cannot be used."""


class ArtefactError(InputError):
    """A file of ours is damaged, or was made for another graph or other data."""


class EngineError(InputError):
    """An engine or its manifest is damaged, altered, or of another target."""


class RequestError(InputError):
    """The arrays handed to a loaded engine do not fit its inputs."""


class MissingLibrary(BuilderError, ImportError):
    """An optional library is not installed."""


class Unsupported(BuilderError, RuntimeError):
    """This machine, or this version of a library, cannot do what was asked."""


class GateMissed(BuilderError, RuntimeError):
    """A gate that the user set was missed."""

    exit_code = 1
