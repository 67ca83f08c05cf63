"""``python -m int8 SUBCOMMAND …``: the installed command without its script."""

from __future__ import annotations

import sys

from int8.main import main

if __name__ == "__main__":
    sys.exit(main())
