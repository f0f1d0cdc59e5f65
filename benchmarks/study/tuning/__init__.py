"""Tuning of a study: a search over all axes at once, by mean validation AUC over seeds, with equal budget per model."""
