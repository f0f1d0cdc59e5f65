"""The settings of a run: one frozen dataclass, read from TOML and overridden by flags of the command line.

Every field is declared once, with its type, default and help text; the TOML reader, the flags and the checks all follow
from that declaration. An unknown name or a value of the wrong type is an error, never ignored: a typo in a
settings file must not become a night of training with the default.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tomli_w

from lmn_model.ctr import ModelSettings
from lmn_model.files import replacing
from lmn_model.setting_types import (
    Declared,
    SettingsError,
    build,
    check_range,
    convert,
    declared_settings,
    override,
    setting,
    without_none,
)
from lmn_model.training.moved_settings import without_moved
from lmn_model.training.setting_upgrades import upgrade, upgrade_names
from lmn_model.wording import did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from lmn_model.data import DataOptions

FREE_TO_CHANGE = {
    "data.path",
    "model.memory.backend",
    *(f"training.{name}" for name in ("epochs", "patience", "eval_every", "checkpoint_minutes", "checkpoint_steps")),
    "training.threads",
    "training.device",
}
"""See :meth:`Settings.decisive`."""
COLUMN_SETTINGS = (
    "user_col",
    "item_col",
    "time_col",
    "label_col",
    "user_features",
    "item_features",
    "context_features",
    "numeric",
    "categorical",
    "time_format",
)
"""Settings of ``[data]`` that name the columns of an event table."""
MAX_THREADS = 4096
"""More is a typo, and OpenMP ends a process that cannot start its threads."""

__all__ = ["DataSettings", "Settings", "SettingsError", "TrainingSettings"]


@dataclass(frozen=True)
class DataSettings:
    """Which events to read and how to make samples of them, or which prepared rows to read."""

    dataset: Literal["complete-journey", "kuairand", "events", "rows"] = setting(
        "complete-journey",
        "kind of data: events (your own table), rows (a folder of prepared rows) or a public data set; with --path "
        "recognised from it, without it complete-journey (default: complete-journey)",
    )
    path: str | None = setting(
        None,
        "your table of events (CSV, TSV or parquet, or a folder of parquet files), or the folder of a data set",
        "FILE",
    )
    user_col: str | None = setting(None, "column with the user id (default: user_id)", "COLUMN")
    item_col: str | None = setting(None, "column with the item id (default: item_id)", "COLUMN")
    time_col: str | None = setting(
        None, "column with the time of the event: date, timestamp or integer (default: timestamp)", "COLUMN"
    )
    label_col: str | None = setting(
        None,
        "column with the label, 1 for a click or purchase and 0 for none; without it every row is a 1, and items "
        "that the user did not choose are added as 0",
        "COLUMN",
    )
    user_features: tuple[str, ...] | None = setting(
        None, "columns that describe the user, such as city", "COLUMN[,COLUMN...]"
    )
    item_features: tuple[str, ...] | None = setting(
        None, "columns that describe the item, such as brand", "COLUMN[,COLUMN...]"
    )
    context_features: tuple[str, ...] | None = setting(
        None, "columns that describe the event, such as hour or price", "COLUMN[,COLUMN...]"
    )
    numeric: tuple[str, ...] | None = setting(
        None,
        "whole-number feature columns to read as quantities; columns with decimal points are read so anyway",
        "COLUMN[,COLUMN...]",
    )
    categorical: tuple[str, ...] | None = setting(
        None, "feature columns whose values are names although they look like numbers", "COLUMN[,COLUMN...]"
    )
    time_format: str | None = setting(
        None, "how the times are written if they are neither ISO 8601 nor integers, such as '%d/%m/%Y %H:%M'", "FORMAT"
    )
    missing_numbers: Literal["refuse", "indicator"] = setting(
        "refuse",
        "what to do if a numeric feature has no value: stop, or read the mean and add a feature that marks it",
    )
    window_size: int = setting(50, "newest events of the user's history in the window", "INT")
    valid_fraction: float = setting(0.1, "share of the samples for the validation split, which precedes the test split")
    test_fraction: float = setting(0.1, "share of the samples for the test split, the latest ones")
    valid_from: int | str | None = setting(
        None,
        "start of the validation split, a date or an integer like your times; replaces the fractions, together with "
        "--test-from",
        "TIME",
    )
    test_from: int | str | None = setting(None, "start of the test split; see --valid-from", "TIME")
    negatives: int = setting(1, "without labels: items drawn as 0 for each event, by popularity")
    history: Literal["positive", "all"] = setting(
        "positive", "with labels: events that enter a user's history, those with label 1 or a blank one, or all"
    )
    min_item_count: int = setting(1, "items with fewer events in the training split are as items that it does not hold")
    max_train_rows: int | None = setting(
        None, "train on at most so many events, drawn at random; histories still use all events"
    )
    max_eval_rows: int | None = setting(
        None,
        "evaluate on at most so many events of the validation split, and of the test split. With --writes samples a "
        "factored memory is written with no more of the validation split than that",
    )
    sampling_seed: int = setting(0, "seed of the drawn negatives and of the two limits above")
    search_by: str | None = setting(
        None,
        "item feature for a search in the whole history: the newest events with the candidate's value of it are "
        "found; --window sim_hard needs it",
        "COLUMN",
    )
    search_window: int = setting(50, "most events that the search by --search-by returns")
    user_rates: bool = setting(
        True,
        "event tables with labels: give every model how many labels the user had before a sample, and their rate; "
        "false where labels come late",
    )

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        check_range(self, "window_size", low=1)
        self.options()

    def columns(self) -> dict[str, str | tuple[str, ...] | None]:
        """The fields of ``Schema`` that these settings give; None leaves the dataset's own."""
        return {
            "user": self.user_col,
            "item": self.item_col,
            "timestamp": self.time_col,
            "label": self.label_col,
            "user_features": self.user_features,
            "item_features": self.item_features,
            "context_features": self.context_features,
            "numeric": self.numeric,
            "categorical": self.categorical,
            "time_format": self.time_format,
            "missing_numbers": self.missing_numbers,
        }

    def options(self) -> DataOptions:
        """How samples are made of the events.

        Raises:
            DataError: an option is out of range.
        """
        from lmn_model.data import DataOptions  # imports torch and polars, which --help does without

        return DataOptions(
            window=self.window_size,
            valid_fraction=self.valid_fraction,
            test_fraction=self.test_fraction,
            valid_from=self.valid_from,
            test_from=self.test_from,
            negatives=self.negatives,
            max_train_rows=self.max_train_rows,
            max_eval_rows=self.max_eval_rows,
            min_item_count=self.min_item_count,
            history=self.history,
            seed=self.sampling_seed,
            search_by=self.search_by,
            search_window=self.search_window,
            user_rates=self.user_rates,
        )


@dataclass(frozen=True)
class TrainingSettings:
    """How the model is trained."""

    epochs: int | None = setting(
        None, "passes over the training split (default: by its size, see docs/guides/default_sizes.md)"
    )
    batch_size: int | None = setting(None, "samples in one training step (default: by the size of the training split)")
    order: Literal["time", "shuffle"] = setting(
        "time", "order of the training samples; a factored memory needs the order of time"
    )
    writes: Literal["calendar", "samples"] | None = setting(
        None,
        "events that a step writes to a factored memory: calendar (of all users, until the next step's first sample; "
        "needs times) or samples (of the users in the step, since their samples before) (default: calendar if the data "
        "have times)",
    )
    learning_rate: float = setting(1e-3, "learning rate of everything but the memory's slots (Adam)")
    memory_learning_rate: float = setting(0.05, "learning rate of the memory's slots")
    event_learning_rate: float = setting(0.1, "learning rate of the embeddings of --event-dim")
    memory_optimizer: Literal["row_adagrad", "row_adam", "adagrad", "sparse_adam"] = setting(
        "row_adagrad", "optimizer of the memory's slots"
    )
    stochastic_rounding: bool = setting(
        True, "round bfloat16 slots at random, up or down in proportion; with row_adagrad and row_adam only"
    )
    reseed_every: int | None = setting(
        None, "every so many steps, move sub-keys that no query chose to where recent queries are (default: never)"
    )
    memory_usage: bool = setting(True, "count which slots are read, for the log and memory_usage.png")
    weight_decay: float = setting(0.0, "decoupled weight decay of the weight matrices; not of embeddings or the memory")
    clip_norm: float | None = setting(None, "scale gradients down to this norm (default: no clipping)")
    eval_every: int | None = setting(
        None, "evaluate on the validation split every so many steps, besides the end of each epoch"
    )
    patience: int | None = setting(
        None,
        "stop after INT evaluations (models with a memory: epochs) without a better validation AUC (default: chosen "
        "together with the epochs; never if you set --epochs)",
    )
    checkpoint_minutes: float = setting(5.0, "minutes between checkpoints, from which --resume continues")
    checkpoint_steps: int | None = setting(None, "steps between checkpoints, besides the minutes")
    seed: int = setting(0, "seed of the initial weights, the order of samples and dropout")
    threads: int | None = setting(None, "CPU threads (default: all cores)")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N; auto takes a GPU if there is one", "DEVICE")

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        for name in ("epochs", "batch_size", "eval_every", "patience", "checkpoint_steps", "reseed_every", "threads"):
            check_range(self, name, low=1)
        for name in ("learning_rate", "memory_learning_rate", "event_learning_rate", "clip_norm", "checkpoint_minutes"):
            check_range(self, name, above=0.0)
        check_range(self, "weight_decay", low=0.0)
        check_range(self, "threads", high=MAX_THREADS)
        check_range(self, "seed", low=0, high=2**63 - 1)


@dataclass(frozen=True)
class Settings:
    """All settings of a run: the sections ``[data]``, ``[model]`` and ``[training]`` of a TOML file."""

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        """Raise ValueError for settings that do not go together."""
        if self.model.window == "sim_hard" and self.data.search_by is None:
            raise ValueError("search_by must name an item feature for window = 'sim_hard', got None")
        if self.model.writes_new_events and self.training.order != "time":
            raise ValueError(
                "order must be 'time' for memory = 'factored', profiles and embeddings of events, got "
                f"{self.training.order!r}"
            )

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read a TOML file; what it does not name keeps its default.

        Raises:
            SettingsError: the file is missing or no TOML, or holds an unknown or wrong setting.
        """
        return cls.from_dict(read_table(path), source=str(path))

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], source: str = "settings") -> Settings:
        """Build settings from nested tables as TOML gives them; names of earlier releases are accepted.

        Raises:
            SettingsError: an unknown or wrong setting, named with ``source``.
        """
        settings: Settings = build(cls, without_moved(upgrade(table, source), cls, source), source)
        return settings

    def to_dict(self) -> dict[str, Any]:
        """The nested tables of the TOML file. TOML has no null: a setting that is None is omitted."""
        tables: dict[str, Any] = without_none(asdict(self))
        return tables

    def unset(self) -> tuple[str, ...]:
        """Names of the settings, without their sections, that are chosen by the data; see :mod:`.default_sizes`.

        Patience is among them only with epochs: a run whose epochs are set makes exactly so many.
        """
        names = [name for name in ("batch_size", "epochs") if getattr(self.training, name) is None]
        if self.training.epochs is None and self.training.patience is None:
            names.append("patience")
        if self.model.has_memory and self.model.memory.sub_keys is None:
            names.append("sub_keys")
        if self.model.writes_new_events and self.training.writes is None:
            names.append("writes")
        levels, signed = self.model.collaborative.profile_levels, self.model.collaborative.profile_signed
        may_have = levels is None and self.model.memory.kind == "factored"
        if may_have:
            names.append("profile_levels")
        if signed is None and (may_have or levels):
            names.append("profile_signed")
        return tuple(names)

    def counts_reads(self) -> bool:
        """Whether the reads of the memory are counted in training: to be reported, or to find unread sub-keys."""
        return self.model.has_memory and (self.training.memory_usage or self.training.reseed_every is not None)

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the result, by section and name, such as ``"training.seed"``, as JSON holds them.

        A run may change the others when it continues: how long it trains, how often it is evaluated and saved, and
        where and with which kernels it computes. The path of the data is among them: data are identified by content.
        """
        found: dict[str, Any] = {}
        tables = [("", asdict(self))]
        while tables:
            section, table = tables.pop()
            for name, value in table.items():
                if isinstance(value, dict):
                    tables.append((f"{section}{name}.", value))
                elif f"{section}{name}" not in FREE_TO_CHANGE:
                    found[f"{section}{name}"] = list(value) if isinstance(value, tuple) else value
        return found

    def save(self, path: Path) -> None:
        """Write every setting as TOML, replacing the file as a whole.

        Raises:
            OSError: the folder is missing, not writable or full.
        """
        with replacing(path) as temporary:
            temporary.write_text(tomli_w.dumps(self.to_dict()), encoding="utf-8")

    def value(self, name: str, source: str = "settings") -> Any:
        """The setting ``name``, without its section.

        Raises:
            SettingsError: there is no such setting, named with ``source``.
        """
        declared = _known(type(self), [name], source)[name]
        return reduce(getattr, (*declared.section, declared.field), self)

    def override(self, values: Mapping[str, Any], source: str = "command line") -> Settings:
        """A copy with settings replaced by name, without their sections; names are unique across sections.

        Names of earlier releases are accepted.

        Raises:
            SettingsError: an unknown or wrong setting, named with ``source``.
        """
        values = upgrade_names(values, self.model.memory.kind, source)
        known = _known(type(self), values, source)
        checked = {name: convert(values[name], known[name].kind, f"{source}: {name}") for name in values}
        settings: Settings = override(self, checked, source)
        return settings


def read_table(path: Path) -> dict[str, Any]:
    """The nested tables of a TOML file of settings, not checked yet.

    Raises:
        SettingsError: the file is missing or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: the settings cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not a TOML file: {error}") from error


def _known(kind: type[Settings], names: Iterable[str], source: str) -> dict[str, Declared]:
    """How settings are declared, by name; raise SettingsError if there is none of one of ``names``."""
    declared = {each.name: each for each in declared_settings(kind)}
    for name in names:
        if name not in declared:
            raise SettingsError(f"{source}: there is no setting {name!r}{did_you_mean(name, declared)}")
    return declared
