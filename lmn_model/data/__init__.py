"""Event tables as samples for training, evaluation and prediction, split by time and free of leaks."""

from lmn_model.data.batches import Batch, BatchLoader
from lmn_model.data.features import CategoricalFeature, FeatureSpec
from lmn_model.data.schema import DataError, Schema
from lmn_model.data.splits import Split

__all__ = [
    "Batch",
    "BatchLoader",
    "CategoricalFeature",
    "DataError",
    "FeatureSpec",
    "Schema",
    "Split",
]
