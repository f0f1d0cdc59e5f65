"""Memories as torch modules, and what keeps them healthy: usage counts, reseeding, growth, a balance loss.

Names are imported on first use, so that settings are checked before torch is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmn_model.lazy import import_on_use

if TYPE_CHECKING:
    from lmn_model.modules.event_embeddings import EventEmbeddings
    from lmn_model.modules.factored_memory import FactoredMemoryNetwork
    from lmn_model.modules.growth import grow
    from lmn_model.modules.large_memory_network import LargeMemoryNetwork, MemoryLosses, MemoryReadOut
    from lmn_model.modules.memory_layer import MemoryLayer
    from lmn_model.modules.product_key_memory import ProductKeyMemory
    from lmn_model.modules.profile_memory import ProfileMemory
    from lmn_model.modules.reseeding import Reseeded, balance_loss, reseed
    from lmn_model.modules.similar_item_memory import SimilarItemMemory
    from lmn_model.modules.usage import Evenness, MemoryUsage, evenness

__all__ = [
    "Evenness",
    "EventEmbeddings",
    "FactoredMemoryNetwork",
    "LargeMemoryNetwork",
    "MemoryLayer",
    "MemoryLosses",
    "MemoryReadOut",
    "MemoryUsage",
    "ProductKeyMemory",
    "ProfileMemory",
    "Reseeded",
    "SimilarItemMemory",
    "balance_loss",
    "evenness",
    "grow",
    "reseed",
]
_MODULES = {
    "Evenness": "usage",
    "EventEmbeddings": "event_embeddings",
    "FactoredMemoryNetwork": "factored_memory",
    "LargeMemoryNetwork": "large_memory_network",
    "MemoryLayer": "memory_layer",
    "MemoryLosses": "large_memory_network",
    "MemoryReadOut": "large_memory_network",
    "MemoryUsage": "usage",
    "ProductKeyMemory": "product_key_memory",
    "ProfileMemory": "profile_memory",
    "Reseeded": "reseeding",
    "SimilarItemMemory": "similar_item_memory",
    "balance_loss": "reseeding",
    "evenness": "usage",
    "grow": "growth",
    "reseed": "reseeding",
}

__getattr__, __dir__ = import_on_use(__name__, _MODULES)
