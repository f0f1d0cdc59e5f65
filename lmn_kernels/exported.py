"""Registration of the named tuples that ops and modules return, for ``torch.export.save``."""

from __future__ import annotations

from typing import Any, TypeVar

from torch.utils import _pytree

_Class = TypeVar("_Class", bound=type[tuple[Any, ...]])


def exported(named_tuple: _Class) -> _Class:
    """Let exported programs that take or return this class be saved and loaded, under the name ``package.Class``."""
    package = named_tuple.__module__.partition(".")[0]
    _pytree._register_namedtuple(named_tuple, serialized_type_name=f"{package}.{named_tuple.__name__}")
    return named_tuple
