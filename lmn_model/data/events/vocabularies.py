"""All that turns the values of an event table into ids and numbers, the same in training and in prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from lmn_model.data.clocks import Clock, check_unit
from lmn_model.data.events.encoder import Encoder, Scale, Vocabulary
from lmn_model.data.events.entities import Entities, first_rows
from lmn_model.data.events.event_table import Events
from lmn_model.data.events.kinds import Kind
from lmn_model.data.events.warnings import column_warnings, id_warnings, split_warnings
from lmn_model.data.features import CategoricalFeature, FeatureSpec
from lmn_model.data.saved import read_saved, write_saved
from lmn_model.data.schema import DataError, Schema
from lmn_model.data.splits import Split
from lmn_model.data.tables.table import column_of
from lmn_model.data.user_rates import NAMES
from lmn_model.wording import shown


@dataclass(frozen=True, eq=False)
class Vocabularies:
    """Ids, scales and the features of users and items.

    Args:
        schema: names of the columns.
        clock: clock of the timestamps.
        kinds: kind of each feature column.
        encoder: vocabulary of each categorical column, user and item included, and scale of each numeric one.
        users: features of every user of the table that training read.
        items: features of every item of that table.
        times: first and last time of the training split; None in runs that did not save them.
    """

    schema: Schema
    clock: Clock
    kinds: Mapping[str, Kind]
    encoder: Encoder
    users: Entities
    items: Entities
    times: tuple[int, int] | None = None
    label_rate: float | None = None

    @classmethod
    def fit(
        cls,
        events: Events,
        schema: Schema,
        train_rows: int,
        min_item_count: int = 1,
        *,
        open_ids: bool = True,
        user_rates: bool = False,
    ) -> Vocabularies:
        """Learn ids and scales from the training split, and describe all users and items with them.

        A user or item has the features of its last row in the training split, or of its first row if it has none
        there. Context features are learnt from the events that are samples.

        Args:
            events: the checked table.
            schema: names of its columns.
            train_rows: number of events in the training split, which are the first of the table.
            min_item_count: items with fewer events in the training split are like items that it does not hold.
            open_ids: give values that the training split does not hold ids of their own.
            user_rates: where there are labels, give samples numeric features of the user's earlier labels.

        Raises:
            DataError: if no item is that frequent.
        """
        train, after = events.frame.head(train_rows), events.frame.slice(train_rows)
        samples = pl.Series(events.samples(schema)[:train_rows])
        learnt = {name: column_of(train, name).filter(samples) for name in schema.context_features}
        tables: dict[str, pl.DataFrame] = {}
        for key, *features in _entity_columns(schema):
            known = train.filter(column_of(train, key).is_last_distinct())
            every = pl.concat([known, after[first_rows(column_of(after, key), column_of(known, key))]])
            tables[key] = every[column_of(every, key).arg_sort()]
            for name in features:
                learnt[name] = column_of(train if events.kinds[name] == "numeric" else known, name)
        counts = column_of(train, schema.item).alias("item").value_counts(name="events")
        learnt[schema.user] = column_of(train, schema.user)
        learnt[schema.item] = counts.filter(pl.col("events") >= min_item_count)["item"].alias("")
        if learnt[schema.item].is_empty():
            raise DataError(f"min_item_count: no item has {min_item_count} events in the training split")
        numeric = {name for name, kind in events.kinds.items() if kind == "numeric"}
        encoder = Encoder(
            vocabularies={name: Vocabulary.fit(column) for name, column in learnt.items() if name not in numeric},
            scales={name: Scale.fit(learnt[name], name) for name in schema.features if name in numeric},
            indicators=schema.missing_numbers == "indicator",
            open_ids=open_ids,
        )
        users, items = (Entities.describe(tables[columns[0]], columns, encoder) for columns in _entity_columns(schema))
        times = events.times(schema)
        span = int(times[0]), int(times[train_rows - 1])
        rate = None
        if user_rates and schema.label is not None:
            mean = float(column_of(train, schema.label).mean())  # type: ignore[arg-type]
            rate = min(max(mean, 1e-6), 1 - 1e-6)
        return cls(schema, events.clock, events.kinds, encoder, users, items, span, rate)

    @property
    def features(self) -> FeatureSpec:
        """Names, order and sizes of the features."""
        known = self.encoder.vocabularies

        def categorical(*columns: str) -> tuple[CategoricalFeature, ...]:
            return tuple(CategoricalFeature(name, known[name].size) for name in columns if name in known)

        return FeatureSpec(
            user=categorical(*self.users.columns),
            item=categorical(*self.items.columns),
            context=categorical(*self.schema.context_features),
            numeric=self.encoder.numeric_names(self.schema.features) + (NAMES if self.label_rate is not None else ()),
            open_ids=self.encoder.open_ids,
        )

    def summary(self) -> str:
        """The kind of each column, with the number of values of the categorical ones, in one line for a log."""
        counts = {name: f"{len(each.values):,}" for name, each in self.encoder.vocabularies.items()}
        numeric = "numeric, marked where it is missing" if self.encoder.indicators else "numeric"
        columns = {self.schema.user: f"{counts[self.schema.user]} users"}
        columns[self.schema.item] = f"{counts[self.schema.item]} items"
        for name in self.schema.features:
            columns[name] = f"categorical, {counts[name]} values" if name in counts else numeric
        return "; ".join(f"{shown(name)} {text}" for name, text in columns.items())

    def warnings(self, splits: Mapping[str, Split]) -> list[str]:
        """Properties of the columns and of the splits that distort metrics, one sentence each."""
        columns = id_warnings(self.encoder, (self.schema.user, self.schema.item))
        columns += column_warnings(self.encoder, self.schema.features)
        return columns + split_warnings(splits, sampled_negatives=self.schema.label is None)

    def check_schema(self, schema: Schema) -> None:
        """Raise DataError if a table is to be read with other columns than in training."""
        if schema != self.schema:
            raise DataError(f"schema: it must be that of training, {self.schema}, got {schema}")

    def check_clock(self, clock: Clock, times: pl.Series) -> None:
        """Raise DataError if the timestamps of a table have another kind or unit than those of training."""
        if clock != self.clock:
            name = shown(self.schema.timestamp)
            raise DataError(f"column {name}: it was {self.clock} in training and is {clock} here")
        if clock == "integer":
            check_unit(int(times.max()), self.times, self.schema.timestamp)  # type: ignore[arg-type]

    def extended(self, frame: pl.DataFrame) -> Vocabularies:
        """The same ids, with features of the users and items of a checked event table that training did not read."""
        users, items = (each.extended(frame, self.encoder) for each in (self.users, self.items))
        return replace(self, users=users, items=items)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for json."""
        return {
            "schema": self.schema.to_dict(),
            "clock": self.clock,
            "times": None if self.times is None else list(self.times),
            "kinds": dict(self.kinds),
            "values": {name: known.values.to_list() for name, known in self.encoder.vocabularies.items()},
            "open_ids": self.encoder.open_ids,
            "label_rate": self.label_rate,
            "scales": {name: [scale.mean, scale.deviation] for name, scale in self.encoder.scales.items()},
            "users": self.users.to_dict(),
            "items": self.items.to_dict(),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Vocabularies:
        """Rebuild from ``to_dict``.

        Raises:
            DataError: if a run on other data than events saved it.
            KeyError, TypeError, ValueError: if a value is missing or damaged; ``load`` turns them into DataError.
        """
        if plain.get("kind", "events") != "events":
            raise DataError(f"it was made for {plain['kind']} and not for events")
        schema, times = Schema.from_dict(plain["schema"]), plain.get("times")
        encoder = Encoder(
            vocabularies={
                name: Vocabulary(pl.Series(values, dtype=pl.String)) for name, values in plain["values"].items()
            },
            scales={name: Scale(float(mean), float(deviation)) for name, (mean, deviation) in plain["scales"].items()},
            indicators=schema.missing_numbers == "indicator",
            open_ids=bool(plain.get("open_ids", False)),  # a run of 0.1.0 has none
        )
        user_columns, item_columns = _entity_columns(schema)
        return cls(
            schema,
            plain["clock"],
            dict(plain["kinds"]),
            encoder,
            users=Entities.from_dict(plain["users"], user_columns),
            items=Entities.from_dict(plain["items"], item_columns),
            times=None if times is None else (int(times[0]), int(times[1])),
            label_rate=None if (rate := plain.get("label_rate")) is None else float(rate),
        )

    def save(self, folder: Path | str) -> Path:
        """Write ``vocabularies.json`` into a folder that exists, all of it or nothing, and return its path."""
        return write_saved(folder, self.to_dict())

    @classmethod
    def load(cls, folder: Path | str) -> Vocabularies:
        """Read what ``save`` wrote into a folder.

        Raises:
            DataError: if the file is missing, damaged or of another format.
        """
        return read_saved(folder, cls.from_dict)


def _entity_columns(schema: Schema) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (schema.user, *schema.user_features), (schema.item, *schema.item_features)
