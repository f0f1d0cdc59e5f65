"""Fused product-key memory ops for PyTorch."""
