"""The settings of the CTR model: the sections ``[model]``, ``[model.memory]`` and ``[model.collaborative]``.

Imported before torch: the command reads its flags from them, so a wrong flag or ``--help`` takes no second.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from lmn_model.setting_types import check_range, setting, take_plain

if TYPE_CHECKING:
    from lmn_model.data import FeatureSpec
    from lmn_model.modules import FactoredMemoryNetwork, LargeMemoryNetwork

FACTORED = ("code_dim", "marginals")
"""Settings of ``memory = "factored"`` alone; its network has arguments of the same names."""
JOINT = ("key_dim", "metric", "positions")
"""Settings of ``memory = "joint"`` alone; its network has arguments of the same names."""
JOINT_SLOTS = 16
"""K of ``memory = "joint"`` by default, if there are so many sub-keys."""
SHARED = ("sub_keys", "activation", "backend")
"""Settings of both kinds that the networks have as arguments of the same names."""


@dataclass(frozen=True)
class MemorySettings:
    """The global memory; the letters are those of ``lmn_kernels``.

    The flag and the study name of ``kind`` is ``memory``.

    Raises:
        TypeError: a value has the wrong type; numbers of NumPy are accepted and stored as Python's.
        ValueError: a size is out of range, ``top_k`` is larger than ``sub_keys``, settings exclude each other, or a
            setting of the other kind of memory is not at its default.
    """

    kind: Literal["none", "joint", "factored"] = setting(
        "factored",
        "global memory beside the window, which all users write and read: none, joint (address from one learned map of "
        "user and item, as in the paper) or factored (half of the address from the item, half from the user; the "
        "better one in our study)",
        name="memory",
    )
    sub_keys: int | None = setting(
        None, "the memory has INT x INT slots (default: by the pairs of a user and an item or its features)", "INT"
    )
    top_k: int | None = setting(
        None,
        "slots read for each pair (default: 1 for a factored memory; for a joint one 16, at most --sub-keys)",
    )
    key_dim: int = setting(16, "joint memory: width of one half of a query")
    code_dim: int = setting(
        64, "factored memory: width of a slot; in a wider slot, events that share it disturb each other less"
    )
    marginals: bool = setting(
        True, "factored memory: also store each item's events of all users, and each user's events of all items"
    )
    joins: Literal["tower", "logit"] = setting(
        "tower", "memory features enter the tower, or a small network whose output is added to the tower's logit"
    )
    gate: bool = setting(False, "scale all other inputs of the tower by a gate computed from the memory features")
    heads: int = setting(1, "joint memory: queries for each pair, all to the same memory")
    metric: Literal["dot", "cosine", "l2"] = setting("dot", "joint memory: similarity of query and sub-key")
    activation: Literal["softmax", "sigmoid", "relu"] = setting(
        "softmax", "function that turns the scores of the slots read into their weights"
    )
    loss_weight: float = setting(1.0, "weight of the loss that trains the slots, beside the loss on the labels")
    balance_weight: float = setting(0.0, "joint memory: weight of a loss that spreads reads evenly over the sub-keys")
    positions: int = setting(
        8, "joint memory: events of a sample's history to store in one step, drawn at random; 0 stores all"
    )
    value_dtype: Literal["float32", "bfloat16"] = setting(
        "float32", "number type of the slots; bfloat16 halves the memory"
    )
    backend: Literal["auto", "triton", "torch"] = setting(
        "auto", "kernels of the memory; auto takes Triton on a GPU and torch elsewhere"
    )

    def __post_init__(self) -> None:
        take_plain(self)
        for name in ("sub_keys", "top_k", "key_dim", "code_dim", "heads"):
            check_range(self, name, low=1)
        check_range(self, "positions", low=0)
        check_range(self, "loss_weight", low=0.0)
        check_range(self, "balance_weight", low=0.0)
        if self.sub_keys is not None and self.slots_read > self.sub_keys:
            raise ValueError(f"top_k must be at most sub_keys = {self.sub_keys}, got {self.top_k}")
        for name in {"joint": FACTORED, "factored": JOINT, "none": ("gate", "joins")}[self.kind]:
            default = next(each.default for each in fields(self) if each.name == name)
            if getattr(self, name) != default:
                raise ValueError(f"{name} has no effect for memory = {self.kind!r}, got {getattr(self, name)!r}")
        if self.kind == "factored" and (self.heads != 1 or self.balance_weight):
            raise ValueError(
                "heads must be 1 and balance_weight 0 for memory = 'factored', got "
                f"heads = {self.heads} and balance_weight = {self.balance_weight}"
            )

    def network(
        self, features: FeatureSpec, item_dim: int, user_dim: int
    ) -> FactoredMemoryNetwork | LargeMemoryNetwork | None:
        """A new memory of these settings, None for the kind ``"none"``; a study of other networks overrides it.

        Args:
            features: what the data hold.
            item_dim: width of an item embedding.
            user_dim: width of a user embedding.
        """
        from lmn_model.modules import FactoredMemoryNetwork, LargeMemoryNetwork  # torch, which --help does without

        if self.kind == "none":
            return None
        if self.kind == "factored":
            return FactoredMemoryNetwork(**self.factored_options(features))
        return LargeMemoryNetwork(
            item_dim,
            user_dim,
            heads=self.heads,
            key_dim=self.key_dim,
            metric=self.metric,
            positions=self.positions or None,
            balance=self.balance_weight > 0,
            **self._shared_options(),
        )

    def factored_options(self, features: FeatureSpec) -> dict[str, Any]:
        """Arguments of :class:`FactoredMemoryNetwork` for data with ``features``."""
        return {
            "item_sizes": [feature.size for feature in features.item],
            "user_size": features.user[0].size,
            "unseen": features.unseen,
            "open_ids": features.open_ids,
            **{name: getattr(self, name) for name in FACTORED},
            **self._shared_options(),
        }

    def _shared_options(self) -> dict[str, Any]:
        import torch

        shared = {name: getattr(self, name) for name in SHARED}
        return {**shared, "top_k": self.slots_read, "value_dtype": getattr(torch, self.value_dtype)}

    @property
    def slots_read(self) -> int:
        """K, as set or by default."""
        if self.top_k is not None:
            return self.top_k
        if self.kind != "joint":
            return 1
        return JOINT_SLOTS if self.sub_keys is None else min(JOINT_SLOTS, self.sub_keys)


@dataclass(frozen=True)
class CollaborativeSettings:
    """Features from the events of all users, beside any window and any memory.

    Raises:
        TypeError: a value has the wrong type; numbers of NumPy are accepted and stored as Python's.
        ValueError: a size is out of range, or a setting has no effect without profiles or embeddings of events.
    """

    profile_levels: int | None = setting(
        None,
        "profiles, rows of users and items that become similar by similar events: levels, 0 for none "
        "(default: 2 or 5 beside a factored memory on event tables with labels, else none)",
    )
    profile_dim: int = setting(64, "width of a profile")
    profile_rows: int | None = setting(
        None, "rows for users, and as many for items, at each level; ids share them (default: one for each id)"
    )
    profile_signed: bool | None = setting(
        None,
        "write the samples with their labels to profiles, and running rates of items and users, instead of positive "
        "events (default: on for event tables with labels)",
    )
    event_dim: int = setting(
        0, "embeddings of users and items that learn from every event, instead of the labels: width, 0 for none"
    )
    event_negatives: int = setting(31, "items of other events that each event is compared with, for --event-dim")
    event_sub_keys: int = setting(
        0,
        "sub-keys of a memory of how often each user chose items like this one, by the embeddings of --event-dim; "
        "0 for none",
    )
    event_top_k: int = setting(32, "sub-keys that an item has in that memory, at most --event-sub-keys")

    def __post_init__(self) -> None:
        take_plain(self)
        for name in ("profile_levels", "event_dim", "event_sub_keys"):
            check_range(self, name, low=0)
        for name in ("profile_dim", "profile_rows", "event_negatives", "event_top_k"):
            check_range(self, name, low=1)
        for name in ("profile_rows", "profile_signed"):
            if getattr(self, name) and self.profile_levels == 0:
                raise ValueError(f"{name} has no effect for profile_levels = 0, got {getattr(self, name)}")
        if self.event_sub_keys and not self.event_dim:
            raise ValueError(f"event_sub_keys has no effect for event_dim = 0, got {self.event_sub_keys}")

    @property
    def is_on(self) -> bool:
        """Whether there is any such feature."""
        return bool(self.profile_levels) or self.event_dim > 0


@dataclass(frozen=True)
class ModelSettings:
    """Shape of the CTR model.

    Raises:
        TypeError: a value has the wrong type; numbers of NumPy are accepted and stored as Python's.
        ValueError: a width is below 1, or the dropout is not in [0, 1).
    """

    window: Literal["none", "pooling", "din", "sim_hard", "sim_soft", "mimn"] = setting(
        "din",
        "model that reads the window, the newest events of the user's history: none, pooling (their mean), din "
        "(attention over them), sim_hard and sim_soft (attention after a search, of the whole history or of the "
        "window), mimn (a memory for each user)",
    )
    embedding_dim: int = setting(16, "width of the embedding of each feature value")
    embedding_std: float = setting(0.05, "standard deviation of the initial embeddings")
    matches: bool = setting(
        False,
        "window match features: give the tower count and recency of the candidate's feature values in the newest "
        "--window-size events",
    )
    hidden: tuple[int, ...] = setting((200, 80), "widths of the hidden layers of the tower (the final MLP)")
    dropout: float = setting(0.0, "share of the tower's units dropped in training, from 0 to below 1")
    memory: MemorySettings = field(default_factory=MemorySettings)
    collaborative: CollaborativeSettings = field(default_factory=CollaborativeSettings)

    def __post_init__(self) -> None:
        take_plain(self)
        check_range(self, "embedding_dim", low=1)
        check_range(self, "embedding_std", above=0.0)
        check_range(self, "dropout", low=0.0, below=1.0)
        if min(self.hidden, default=1) < 1:
            raise ValueError(f"hidden must hold widths of at least 1, got {self.hidden}")
        if self.collaborative.profile_levels is None and self.memory.kind != "factored":
            for name in ("profile_rows", "profile_signed"):
                if value := getattr(self.collaborative, name):
                    raise ValueError(f"{name} needs profile_levels for memory = {self.memory.kind!r}, got {value}")

    @property
    def name(self) -> str:
        """Window and memory in short: ``"din-factored"``, ``"din"`` without a memory, ``"joint"`` without a window."""
        return "-".join(each for each in (self.window, self.memory.kind) if each != "none") or "none"

    @property
    def has_memory(self) -> bool:
        """Whether the model has a memory."""
        return self.memory.kind != "none"

    @property
    def writes_new_events(self) -> bool:
        """Whether each event is written once, when it is new; needs samples in the order of time."""
        return self.memory.kind == "factored" or self.collaborative.is_on

    @property
    def writes_feedback(self) -> bool:
        """Whether labelled samples are written once they were scored; needs samples in the order of time."""
        return bool(self.collaborative.profile_signed)
