"""Optional libraries: imported when needed, missed with a sentence."""

from __future__ import annotations

import importlib
from types import ModuleType

from artefacts.errors import MissingLibraryError

__all__ = ["require"]


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional library.

    Args:
        module: dotted name of the module, e.g. ``"openvino"``.
        extra: the extra of this project that installs it, e.g. ``"cpu"``.

    Raises:
        MissingLibraryError: it is not installed (or one of its own needs is not).
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise MissingLibraryError(
            f"library {module} cannot be imported ({err}), expected it for this step; "
            f"install it with: pip install '.[{extra}]'"
        ) from err
