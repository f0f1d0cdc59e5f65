"""Everything that turns the values of a table into ids and numbers, the same in training and in prediction.

One json file holds it all. It is data and not code: nothing in it is executed when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from lmn_model.data.clocks import Clock, check_unit
from lmn_model.data.events.encoder import Encoder, Scale, Vocabulary
from lmn_model.data.events.entities import Entities, first_rows
from lmn_model.data.events.event_table import Events
from lmn_model.data.events.kinds import Kind
from lmn_model.data.features import CategoricalFeature, FeatureSpec
from lmn_model.data.schema import DataError, Schema
from lmn_model.data.tables.table import column_of
from lmn_model.files import replacing
from lmn_model.wording import shown

FILE_NAME = "vocabularies.json"
_FORMAT = 1
_Saved = TypeVar("_Saved")


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
        times: first and last time of the training split; None in runs that did not keep them.
    """

    schema: Schema
    clock: Clock
    kinds: Mapping[str, Kind]
    encoder: Encoder
    users: Entities
    items: Entities
    times: tuple[int, int] | None = None

    @classmethod
    def fit(cls, events: Events, schema: Schema, train_rows: int, min_item_count: int = 1) -> Vocabularies:
        """Learn ids and scales from the training part, and describe all users and items with them.

        A user or item has the features of its last row in the training part, or of its first row at all if it came
        later. Context features are learnt from the events that are samples.

        Args:
            events: the checked table.
            schema: names of its columns.
            train_rows: number of events in the training part, which are the first of the table.
            min_item_count: items with fewer events in the training part share the id of the unseen.

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
            raise DataError(f"min_item_count: no item has {min_item_count} events in the training part")
        numeric = {name for name, kind in events.kinds.items() if kind == "numeric"}
        encoder = Encoder(
            vocabularies={name: Vocabulary.fit(column) for name, column in learnt.items() if name not in numeric},
            scales={name: Scale.fit(learnt[name], name) for name in schema.features if name in numeric},
            indicators=schema.missing_numbers == "indicator",
        )
        users, items = (Entities.describe(tables[columns[0]], columns, encoder) for columns in _entity_columns(schema))
        times = events.times(schema)
        span = (int(times[0]), int(times[train_rows - 1]))
        return cls(schema, events.clock, events.kinds, encoder, users, items, span)

    @property
    def features(self) -> FeatureSpec:
        """Names, order and sizes of the features."""
        known = self.encoder.vocabularies

        def categorical(*columns: str) -> tuple[CategoricalFeature, ...]:
            return tuple(CategoricalFeature(name, known[name].size) for name in columns if name in known)

        users, items = _entity_columns(self.schema)
        return FeatureSpec(
            user=categorical(*users),
            item=categorical(*items),
            context=categorical(*self.schema.context_features),
            numeric=self.encoder.numbers_of(self.schema.features),
        )

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
        return replace(
            self,
            users=self.users.extended(frame, self.encoder),
            items=self.items.extended(frame, self.encoder),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for json."""
        return {
            "format": _FORMAT,
            "schema": self.schema.to_dict(),
            "clock": self.clock,
            "times": None if self.times is None else list(self.times),
            "kinds": dict(self.kinds),
            "values": {name: known.values.to_list() for name, known in self.encoder.vocabularies.items()},
            "scales": {name: [scale.mean, scale.deviation] for name, scale in self.encoder.scales.items()},
            "users": self.users.to_dict(),
            "items": self.items.to_dict(),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Vocabularies:
        """Rebuild from ``to_dict``.

        Raises:
            DataError: if the format is another one.
            KeyError, TypeError, ValueError: if a part is missing or damaged; ``load`` turns them into DataError.
        """
        if plain.get("kind", "events") != "events":
            raise DataError(f"it was made for {plain['kind']} and not for events")
        if plain["format"] != _FORMAT:
            raise DataError(f"format must be {_FORMAT}, got {plain['format']!r}")
        schema = Schema.from_dict(plain["schema"])
        encoder = Encoder(
            vocabularies={
                name: Vocabulary(pl.Series(values, dtype=pl.String)) for name, values in plain["values"].items()
            },
            scales={name: Scale(float(mean), float(deviation)) for name, (mean, deviation) in plain["scales"].items()},
            indicators=schema.missing_numbers == "indicator",
        )
        of_users, of_items = _entity_columns(schema)
        users = Entities.from_dict(plain["users"], of_users)
        items = Entities.from_dict(plain["items"], of_items)
        times = plain.get("times")
        span = None if times is None else (int(times[0]), int(times[1]))
        return cls(schema, plain["clock"], dict(plain["kinds"]), encoder, users, items, span)

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


def write_saved(folder: Path | str, plain: Mapping[str, Any]) -> Path:
    """Write plain values as ``vocabularies.json`` into a folder that exists, all or nothing, and return its path."""
    path = Path(folder) / FILE_NAME
    text = json.dumps(plain, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def read_saved(folder: Path | str, rebuild: Callable[[Mapping[str, Any]], _Saved]) -> _Saved:
    """What ``rebuild`` makes of the plain values in ``vocabularies.json``.

    Raises:
        DataError: if the file is missing, damaged or of another format.
    """
    path = Path(folder) / FILE_NAME
    try:
        return rebuild(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: the file is damaged: {type(error).__name__}: {error}") from error


def _entity_columns(schema: Schema) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (schema.user, *schema.user_features), (schema.item, *schema.item_features)
