"""Every error a user can meet.

    BuilderError                           printed as one sentence by main(), exit code 2
    ├── InputError (ValueError)            something the user gave cannot be used
    │   ├── ModelError                     an ONNX file or graph
    │   ├── DataError                      samples, labels, a preprocessing spec
    │   ├── ArtefactError                  a file of ours: damaged, or of another graph or data
    │   ├── EngineError                    an engine or manifest: damaged, altered, foreign
    │   └── RequestError                   the arrays handed to a loaded engine
    │       ├── NotFiniteError             NaN or infinite values, where they are looked for
    │       └── ClosedError                no fault of theirs: engine or pool is closed
    ├── MissingLibraryError (ImportError)  an optional library; names the extra that brings it
    ├── BusyError (TimeoutError)           a pool has no engine in time
    ├── UnsupportedError (RuntimeError)    this machine or library version cannot do it
    └── GateMissedError (RuntimeError)     a gate (accuracy, coverage, speed): exit code 1

A message says four things: the thing, what was found, what was expected, what to do.
"""

from __future__ import annotations

__all__ = [
    "ArtefactError",
    "BuilderError",
    "BusyError",
    "ClosedError",
    "DataError",
    "EngineError",
    "GateMissedError",
    "InputError",
    "MissingLibraryError",
    "ModelError",
    "NotFiniteError",
    "RequestError",
    "UnsupportedError",
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


class NotFiniteError(RequestError):
    """A request holds NaN or infinite values, and the engine was told to look for them."""


class ClosedError(RequestError):
    """A request came too late: the engine or pool is closed, or belongs to another process."""


class MissingLibraryError(BuilderError, ImportError):
    """An optional library is not installed."""


class BusyError(BuilderError, TimeoutError):
    """A pool has no engine in time; the same request may succeed later."""


class UnsupportedError(BuilderError, RuntimeError):
    """This machine, or this version of a library, cannot do what was asked."""


class GateMissedError(BuilderError, RuntimeError):
    """A gate that the user set was missed."""

    exit_code = 1
