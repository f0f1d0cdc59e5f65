"""The way into the command ``lmn``: it needs the ``train`` extra, and says so in one line where that is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence

EXTRA = ("matplotlib", "polars", "safetensors", "tomli", "tomli_w", "tqdm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 if runs of a study failed, 2 for an error, 130 after Ctrl-C."""
    try:
        from lmn_model.commands import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in EXTRA:
            raise
        print(f"lmn: error: {error.name} is not installed; pip install 'lmn-kernels[train]'", file=sys.stderr)
        return 2
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
