"""Large Memory Network: torch modules, a CTR model and the ``lmn`` command on top of ``lmn_kernels``.

The modules need torch alone; data and training need the ``train`` extra. Names are imported on first use, so that the
command can parse its arguments and handle Ctrl-C before torch is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmn_model.modules.factored_memory import FactoredMemoryNetwork
    from lmn_model.modules.large_memory_network import LargeMemoryNetwork, MemoryLosses, MemoryReadOut
    from lmn_model.modules.memory_layer import MemoryLayer

__all__ = ["FactoredMemoryNetwork", "LargeMemoryNetwork", "MemoryLayer", "MemoryLosses", "MemoryReadOut"]
_MODULES = {
    "FactoredMemoryNetwork": "factored_memory",
    "LargeMemoryNetwork": "large_memory_network",
    "MemoryLayer": "memory_layer",
    "MemoryLosses": "large_memory_network",
    "MemoryReadOut": "large_memory_network",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
