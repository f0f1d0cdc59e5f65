"""Scoring with a trained model: metrics of a split, of a finished run or of other data, and predictions for pairs."""
