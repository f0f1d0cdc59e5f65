"""The K best slots of a product-key memory for each query, at once or axis by axis."""

from .api import ProductKeyTopK, product_key_topk
from .axes import AxisTopK, axis_topk, combine_axes

__all__ = ["AxisTopK", "ProductKeyTopK", "axis_topk", "combine_axes", "product_key_topk"]
