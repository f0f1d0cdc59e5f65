"""The K best slots of a product-key memory for each query."""

from .api import ProductKeyTopK, product_key_topk

__all__ = ["ProductKeyTopK", "product_key_topk"]
