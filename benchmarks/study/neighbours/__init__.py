"""Nearest products and households by profiles and by embeddings of events, with names: the command ``neighbours``."""
