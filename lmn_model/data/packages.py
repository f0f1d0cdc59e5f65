"""Data files inside installed packages, found without importing the package, which may load much more."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from lmn_model.data.schema import DataError


def package_file(module: str, path: str, *, dataset: str, install: str) -> Path:
    """The file ``path`` of an installed package.

    Args:
        module: name by which the package is imported.
        path: relative to the package's folder.
        dataset: name of the data set, for the message.
        install: command that installs the package, for the message.

    Raises:
        DataError: if the package is not installed or has no such file.
    """
    package = importlib.util.find_spec(module)
    if package is None or package.origin is None:
        raise DataError(f"{dataset}: the data package is missing; {install}")
    file = Path(package.origin).parent / path
    if not file.is_file():
        raise DataError(f"{dataset}: the package {module} that is installed has no {path}; {install}")
    return file
