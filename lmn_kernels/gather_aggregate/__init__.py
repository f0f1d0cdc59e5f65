"""Weighted sum of value rows named by slot."""

from .api import gather_aggregate

__all__ = ["gather_aggregate"]
