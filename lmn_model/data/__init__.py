"""Event tables as samples for training, evaluation and prediction, split by time and free of leaks.

Names are imported on first use, so that the command can check settings and headers before torch is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmn_model.lazy import import_on_use

if TYPE_CHECKING:
    from lmn_model.data.batches import Batch
    from lmn_model.data.dataset import Dataset
    from lmn_model.data.events.load import events_of_run, load_dataset, load_samples
    from lmn_model.data.events.pairs import prepare_pairs
    from lmn_model.data.events.sources import load_source
    from lmn_model.data.events.vocabularies import Vocabularies
    from lmn_model.data.features import CategoricalFeature, FeatureSpec
    from lmn_model.data.loader import BatchLoader
    from lmn_model.data.options import DataOptions
    from lmn_model.data.rows.features import RowFeatures, load_vocabularies
    from lmn_model.data.rows.load import load_rows
    from lmn_model.data.schema import DataError, Schema
    from lmn_model.data.splits import Split
    from lmn_model.data.tables.read import read_table
    from lmn_model.data.tables.table import Table

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
    "events_of_run",
    "load_dataset",
    "load_rows",
    "load_samples",
    "load_source",
    "load_vocabularies",
    "prepare_pairs",
    "read_table",
]
_MODULES = {
    "Batch": "batches",
    "BatchLoader": "loader",
    "CategoricalFeature": "features",
    "DataError": "schema",
    "DataOptions": "options",
    "Dataset": "dataset",
    "FeatureSpec": "features",
    "RowFeatures": "rows.features",
    "Schema": "schema",
    "Split": "splits",
    "Table": "tables.table",
    "Vocabularies": "events.vocabularies",
    "events_of_run": "events.load",
    "load_dataset": "events.load",
    "load_rows": "rows.load",
    "load_samples": "events.load",
    "load_source": "events.sources",
    "load_vocabularies": "rows.features",
    "prepare_pairs": "events.pairs",
    "read_table": "tables.read",
}

__getattr__, __dir__ = import_on_use(__name__, _MODULES)
