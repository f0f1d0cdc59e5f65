"""Triton kernels of product-key selection; see ``launchers.py``."""

from .launchers import launch_product_key_topk, launch_product_key_topk_backward

__all__ = ["launch_product_key_topk", "launch_product_key_topk_backward"]
