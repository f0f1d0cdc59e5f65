"""Large Memory Network: torch modules, a CTR model and the ``lmn`` command on top of ``lmn_kernels``.

The modules need torch alone; data and training need the ``train`` extra.
"""

from .factored_memory import FactoredMemoryNetwork
from .large_memory_network import LargeMemoryNetwork, MemoryLosses, MemoryReadOut
from .memory_layer import MemoryLayer

__all__ = ["FactoredMemoryNetwork", "LargeMemoryNetwork", "MemoryLayer", "MemoryLosses", "MemoryReadOut"]
