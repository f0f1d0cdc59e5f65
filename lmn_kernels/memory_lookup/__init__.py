"""Selection, activation and read-out of a product-key memory in one op."""

from .api import MemoryLookup, memory_lookup

__all__ = ["MemoryLookup", "memory_lookup"]
