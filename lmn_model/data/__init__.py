"""Event tables as samples for training, evaluation and prediction, split by time and free of leaks."""

from lmn_model.data.batches import Batch, BatchLoader
from lmn_model.data.dataset import Dataset, load_dataset, load_samples
from lmn_model.data.features import CategoricalFeature, FeatureSpec
from lmn_model.data.options import DataOptions
from lmn_model.data.pairs import prepare_pairs
from lmn_model.data.row_features import RowFeatures, load_vocabularies
from lmn_model.data.rows import load_rows
from lmn_model.data.schema import DataError, Schema
from lmn_model.data.sources import load_source
from lmn_model.data.splits import Split
from lmn_model.data.tables import Table, read_table
from lmn_model.data.vocabularies import Vocabularies

__all__ = [
    "Batch",
    "BatchLoader",
    "CategoricalFeature",
    "DataError",
    "DataOptions",
    "Dataset",
    "FeatureSpec",
    "RowFeatures",
    "Schema",
    "Split",
    "Table",
    "Vocabularies",
    "load_dataset",
    "load_rows",
    "load_samples",
    "load_source",
    "load_vocabularies",
    "prepare_pairs",
    "read_table",
]
