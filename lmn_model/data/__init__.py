"""Event tables as samples for training, evaluation and prediction, split by time and free of leaks.

Names are imported on first use, so that the command can check settings and headers before torch is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmn_model.data.batches import Batch, BatchLoader
    from lmn_model.data.events.load import Dataset, events_of_run, load_dataset, load_samples
    from lmn_model.data.features import CategoricalFeature, FeatureSpec
    from lmn_model.data.options import DataOptions
    from lmn_model.data.events.pairs import prepare_pairs
    from lmn_model.data.rows.features import RowFeatures, load_vocabularies
    from lmn_model.data.rows.load import load_rows
    from lmn_model.data.schema import DataError, Schema
    from lmn_model.data.events.sources import load_source
    from lmn_model.data.splits import Split
    from lmn_model.data.events.tables import Table, read_table
    from lmn_model.data.events.vocabularies import Vocabularies

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
    "BatchLoader": "batches",
    "CategoricalFeature": "features",
    "DataError": "schema",
    "DataOptions": "options",
    "Dataset": "dataset",
    "FeatureSpec": "features",
    "RowFeatures": "row_features",
    "Schema": "schema",
    "Split": "splits",
    "Table": "tables",
    "Vocabularies": "vocabularies",
    "events_of_run": "dataset",
    "load_dataset": "dataset",
    "load_rows": "rows",
    "load_samples": "dataset",
    "load_source": "sources",
    "load_vocabularies": "row_features",
    "prepare_pairs": "pairs",
    "read_table": "tables",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value
