"""Large Memory Network: torch modules, a CTR model and the ``lmn`` command on top of ``lmn_kernels``.

The modules need torch alone; data and training need the ``train`` extra. Names are imported on first use, so that the
command can parse its arguments and handle Ctrl-C before torch is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmn_model.lazy import import_on_use

if TYPE_CHECKING:
    from lmn_model.modules.event_embeddings import EventEmbeddings
    from lmn_model.modules.factored_memory import FactoredMemoryNetwork
    from lmn_model.modules.large_memory_network import LargeMemoryNetwork, MemoryLosses, MemoryReadOut
    from lmn_model.modules.memory_layer import MemoryLayer
    from lmn_model.modules.product_key_memory import ProductKeyMemory
    from lmn_model.modules.profile_memory import ProfileMemory
    from lmn_model.modules.similar_item_memory import SimilarItemMemory

__all__ = [
    "EventEmbeddings",
    "FactoredMemoryNetwork",
    "LargeMemoryNetwork",
    "MemoryLayer",
    "MemoryLosses",
    "MemoryReadOut",
    "ProductKeyMemory",
    "ProfileMemory",
    "SimilarItemMemory",
]
_MODULES = {
    "EventEmbeddings": "modules.event_embeddings",
    "FactoredMemoryNetwork": "modules.factored_memory",
    "LargeMemoryNetwork": "modules.large_memory_network",
    "MemoryLayer": "modules.memory_layer",
    "MemoryLosses": "modules.large_memory_network",
    "MemoryReadOut": "modules.large_memory_network",
    "ProductKeyMemory": "modules.product_key_memory",
    "ProfileMemory": "modules.profile_memory",
    "SimilarItemMemory": "modules.similar_item_memory",
}

__getattr__, __dir__ = import_on_use(__name__, _MODULES)
