"""The CTR model: embeddings, an interest part, a tower.

What reads the history is configured: one of the parts of :mod:`lmn_model.interest`, or ``"lmn"``, which is DIN with the
Large Memory Network beside it, or ``"lmn_only"``, the memory without a window. Everything else is the same for all, so
that they can be compared.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .data import Batch, FeatureSpec
from .factored_memory import FactoredMemoryNetwork, check_together
from .feature_embedding import FeatureEmbedding
from .interest import WindowMatches, interest_part
from .large_memory_network import LargeMemoryNetwork, MemoryLosses
from .memory_layer import MemoryLayer
from .resetting import ZeroLinear, reset_children
from .setting_types import check_range, setting, take_plain

FACTORED = ("code_dim", "marginals", "address", "target", "read_out", "keys", "code_metric")
"""Settings of a factored query alone; its network has arguments of the same names."""
JOINT = ("key_dim", "metric", "positions")
"""Settings of a joint query alone."""
SHARED = ("sub_keys", "activation", "loss", "backend")
"""Settings of both that the networks have as arguments of the same names."""


@dataclass(frozen=True)
class MemorySettings:
    """The memory block; the letters are those of ``lmn_kernels``.

    Raises:
        TypeError: a number is none; NumPy's are taken and kept as Python's.
        ValueError: a size is out of range, ``top_k`` is larger than ``sub_keys``, settings do not go together, or one
            that has no effect on the query is not at its default.
    """

    query: Literal["joint", "factored"] = setting(
        "factored",
        "what asks the memory: one learned map of item and user, or fixed codes of an item feature and the user",
    )
    sub_keys: int = setting(1024, "N, sub-keys on each axis; the memory has N * N slots")
    top_k: int | None = setting(
        None,
        "K, slots that each head reads; if not set 16 for a joint query (all, if they are fewer), 1 for a factored",
    )
    key_dim: int = setting(16, "C, width of one query half, of a joint query")
    code_dim: int = setting(64, "D, width of a code and of a value, of a factored query")
    marginals: bool = setting(
        True, "write and read an item with any user and a user with any item too, of a factored query"
    )
    address: Literal["pair", "item", "user"] = setting(
        "pair", "what a factored query comes from: half 0 from the item and half 1 from the user, or both from one"
    )
    target: Literal["bound", "pair"] = setting(
        "bound", "what an event writes, of a factored query: the product of its codes, or the two side by side"
    )
    read_out: Literal["familiarity", "answer", "both"] = setting(
        "familiarity", "what the memory tells, of a factored query: how familiar the pair is, the answer, or both"
    )
    keys: Literal["product", "flat"] = setting(
        "product", "what finds the slots of a factored query: two axes of sub-keys, or a search of N * N whole keys"
    )
    code_metric: Literal["cosine", "dot", "l2"] = setting("cosine", "score of a key, of a factored query")
    joins: Literal["tower", "logit"] = setting(
        "tower",
        "where what the memory tells comes in: the tower, or a small network of its own, added to the tower's logit",
    )
    gate: bool = setting(False, "let what the memory tells gate all else that enters the tower, as in MSN")
    heads: int = setting(1, "H, routers over the one table of values")
    metric: Literal["dot", "cosine", "l2"] = setting("dot", "score of a sub-key, of a joint query")
    activation: Literal["softmax", "sigmoid", "relu"] = setting("softmax", "what turns scores into weights")
    loss: Literal["smooth_l1", "mse"] = setting("smooth_l1", "the memory loss")
    loss_weight: float = setting(1.0, "lambda, weight of the memory loss")
    balance_weight: float = setting(
        0.0, "weight of the balance loss, which evens out the use of sub-keys, of a joint query"
    )
    positions: int = setting(8, "history positions that a row writes in one step, drawn at random; 0 for all")
    value_dtype: Literal["float32", "bfloat16"] = setting("float32", "type of the value table")
    backend: Literal["auto", "triton", "torch"] = setting("auto", "kernels of the memory")

    def __post_init__(self) -> None:
        take_plain(self)
        for name in ("sub_keys", "top_k", "key_dim", "code_dim", "heads"):
            check_range(self, name, low=1)
        check_range(self, "positions", low=0)
        check_range(self, "loss_weight", low=0.0)
        check_range(self, "balance_weight", low=0.0)
        if self.slots_read > self.sub_keys:
            raise ValueError(f"top_k must be at most sub_keys = {self.sub_keys}, got {self.top_k}")
        for name in FACTORED if self.query == "joint" else JOINT:
            default = next(each.default for each in fields(self) if each.name == name)
            if getattr(self, name) != default:
                raise ValueError(f"{name} has no effect on a {self.query} query, got {getattr(self, name)!r}")
        check_together(
            code_dim=self.code_dim, target=self.target, keys=self.keys, sub_keys=self.sub_keys, address=self.address
        )
        if self.query == "factored" and (self.heads != 1 or self.balance_weight):
            raise ValueError(
                "a factored query has one head and nothing that a balance loss could move, got "
                f"heads = {self.heads} and balance_weight = {self.balance_weight}"
            )

    @property
    def slots_read(self) -> int:
        """K, as set or by default."""
        if self.top_k is not None:
            return self.top_k
        return 1 if self.query == "factored" else min(16, self.sub_keys)


@dataclass(frozen=True)
class ModelSettings:
    """Shape of the CTR model.

    Raises:
        TypeError: a number is none; NumPy's are taken and kept as Python's.
        ValueError: a width is below 1, the dropout is not in [0, 1), or ``gate`` or ``joins`` is not at its
            default where there is no memory.
    """

    interest: Literal["pooling", "din", "sim_hard", "sim_soft", "mimn", "lmn", "lmn_only"] = setting(
        "lmn", "what reads the history; lmn is the memory beside DIN, lmn_only the memory alone"
    )
    embedding_dim: int = setting(16, "width of one feature's embedding")
    embedding_std: float = setting(0.05, "standard deviation of the embeddings at the start")
    matches: bool = setting(
        False,
        "tell the tower how often and how lately the window holds each feature value of the candidate, "
        "whatever else reads it",
    )
    hidden: tuple[int, ...] = setting((200, 80), "widths of the tower's hidden layers")
    dropout: float = setting(0.0, "dropout in the tower")
    memory: MemorySettings = field(default_factory=MemorySettings)

    def __post_init__(self) -> None:
        take_plain(self)
        check_range(self, "embedding_dim", low=1)
        check_range(self, "embedding_std", above=0.0)
        check_range(self, "dropout", low=0.0, below=1.0)
        if min(self.hidden, default=1) < 1:
            raise ValueError(f"hidden must hold widths of at least 1, got {self.hidden}")
        if not self.has_memory:
            without = f"for interest = {self.interest!r}, which has no memory, got"
            if self.memory.gate:
                raise ValueError(f"gate must be False {without} True")
            if self.memory.joins != "tower":
                raise ValueError(f"joins must be 'tower' {without} {self.memory.joins!r}")

    @property
    def has_memory(self) -> bool:
        """Whether the model has the memory block, beside a window or alone."""
        return self.interest in ("lmn", "lmn_only")

    @property
    def writes_new_events(self) -> bool:
        """Whether the memory is written with each event once, when it is new, and so needs the order of time."""
        return self.has_memory and self.memory.query == "factored"


class CTROutput(NamedTuple):
    """What the model says of a batch, and what its memory learns from in training.

    Attributes:
        logits: ``[B]`` float32.
        memory_loss: a scalar, not yet weighed; None without a memory and outside training.
        balance_loss: the same, None too where its weight is 0.
    """

    logits: Tensor
    memory_loss: Tensor | None = None
    balance_loss: Tensor | None = None


class MemoryGate(nn.Module):
    """Scales each feature by 0 to 2, as the memory's answer says; by 1 at first.

    Args:
        told: width of what the memory tells.
        features: width of what is gated.

    Source: the idea of the Memory Scaling Network, arXiv 2602.07526, that read-outs of a memory gate the interaction of
    features, as we read it in the paper's abstract; a re-implementation in its simplest form, a linear map and a
    sigmoid before the tower.
    """

    def __init__(self, told: int, features: int) -> None:
        super().__init__()
        self.map = ZeroLinear(told, features)

    def reset_parameters(self) -> None:
        """Scale by 1 again."""
        self.map.reset_parameters()

    def forward(self, told: Tensor, features: Tensor) -> Tensor:
        """``[B, told]`` and ``[B, features]`` to ``[B, features]``."""
        return features * (2 * torch.sigmoid(self.map(told)))


class MemoryLogit(nn.Sequential):
    """A logit from what the memory tells alone, to be added to the tower's; 0 at first.

    The tower can combine whatever it is told with everything else, and so comes to rely on it everywhere. What is added
    can only shift a logit: the memory has less to gain and less to spoil where what it tells drifts. (A gate scales the
    tower's input all the same.)

    Args:
        told: width of what the memory tells.
        hidden: width of the hidden layer.

    Source: ours; a shallow network beside the tower is how Cheng et al. 2016, Wide & Deep Learning, arXiv 1606.07792,
    keep what is counted apart from what is embedded.
    """

    def __init__(self, told: int, hidden: int = 32) -> None:
        out = ZeroLinear(hidden, 1)
        super().__init__(nn.Linear(told, hidden), nn.ReLU(), out)

    def reset_parameters(self) -> None:
        """Draw the hidden layer; the logit is 0 again."""
        for layer in (self[2], self[0]):  # in the order of their construction
            layer.reset_parameters()


class CTRModel(nn.Module):
    """Probability that a user clicks (buys) an item.

    Args:
        features: what the data hold; see :class:`lmn_model.data.FeatureSpec`.
        settings: see :class:`ModelSettings`.
    """

    def __init__(self, features: FeatureSpec, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        embedding = (settings.embedding_dim, settings.embedding_std)
        self.user_embedding = FeatureEmbedding(features.user, *embedding)
        self.item_embedding = FeatureEmbedding(features.item, *embedding)
        self.context_embedding = FeatureEmbedding(features.context, *embedding)
        user_dim, item_dim = self.user_embedding.width, self.item_embedding.width
        self.interest = interest_part(settings.interest, item_dim)
        width = user_dim + (1 + self.interest.interests) * item_dim
        width += self.context_embedding.width + len(features.numeric)
        self.matches = WindowMatches(features.unseen) if settings.matches else None
        if self.matches is not None:  # of what a search found too
            width += self.matches.SIGNALS * len(features.item) * (2 if self.interest.searches else 1)
        self.memory: LargeMemoryNetwork | FactoredMemoryNetwork | None = None
        told = 0
        value_dtype = getattr(torch, settings.memory.value_dtype)
        if settings.writes_new_events:
            shape = {name: getattr(settings.memory, name) for name in (*FACTORED, *SHARED)}
            self.memory = FactoredMemoryNetwork(
                [feature.size for feature in features.item],
                features.user[0].size,
                unseen=features.unseen,
                top_k=settings.memory.slots_read,
                value_dtype=value_dtype,
                **shape,
            )
            told = self.memory.signals
        elif settings.has_memory:
            memory = asdict(settings.memory)
            for name in ("query", "loss_weight", "gate", "joins", *FACTORED):
                del memory[name]
            memory["balance"] = memory.pop("balance_weight") > 0
            memory["positions"] = memory["positions"] or None
            memory["top_k"] = settings.memory.slots_read
            memory["value_dtype"] = value_dtype
            self.memory = LargeMemoryNetwork(item_dim, user_dim, **memory)
            told = item_dim + user_dim + LargeMemoryNetwork.FAMILIARITY
        apart = settings.memory.joins == "logit"
        self.tower = _tower(width if apart else width + told, settings.hidden, settings.dropout)
        self.gate = MemoryGate(told, width) if told and settings.memory.gate else None
        self.memory_logit = MemoryLogit(told) if told and apart else None

    def reset_parameters(self) -> None:
        """Draw everything anew; under one seed the model is then, bit for bit, a new one."""
        reset_children(self)

    def forward(self, batch: Batch) -> CTROutput:
        """Score a :class:`lmn_model.data.Batch`. The memory loss is computed in training only.

        Raises:
            ValueError: the interest part searches the whole history and the batch has no ``found``.
        """
        user = self.user_embedding(batch.user)
        item = self.item_embedding(batch.item)
        history = self.item_embedding(batch.history)
        parts = [user, item, self.context_embedding(batch.context), batch.numeric]
        found, found_mask = None, None
        if self.interest.searches:
            found, found_mask = batch.found, batch.found_mask
            found = None if found is None else self.item_embedding(found)
        parts.append(self.interest(item, history, batch.history_mask, found, found_mask))
        if self.matches is not None:
            parts.append(self.matches(batch.item, batch.history, batch.history_mask))
            if batch.found is not None and batch.found_mask is not None and self.interest.searches:
                parts.append(self.matches(batch.item, batch.found, batch.found_mask))
        losses: tuple[Tensor | None, ...] = ()
        told: Tensor | None = None
        if isinstance(self.memory, FactoredMemoryNetwork):
            told = self.memory(batch.item, batch.user[:, 0])
            if self.training:
                losses = self.write_losses(batch)
        elif self.memory is not None:
            told = torch.cat(self.memory(item, user), dim=-1)
            if self.training:
                losses = self.memory.losses(history, batch.history_mask, user)
        if told is not None:
            if self.gate is not None:
                parts = [self.gate(told, torch.cat(parts, dim=-1))]
            if self.memory_logit is None:
                parts.append(told)
        logits = self.tower(torch.cat(parts, dim=-1))
        if told is not None and self.memory_logit is not None:
            logits = logits + self.memory_logit(told)
        return CTROutput(logits.squeeze(-1), *losses)

    def write_losses(self, batch: Batch) -> MemoryLosses:
        """What the new events of a batch teach a memory with a factored query.

        Raises:
            ValueError: the model has no such memory, or the batch does not tell its new events.
        """
        if not isinstance(self.memory, FactoredMemoryNetwork):
            raise ValueError("write_losses: the model has no memory with a factored query")
        if batch.new_items is None or batch.new_rows is None:
            raise ValueError("write_losses: batch must have new_items and new_rows (BatchLoader(new_events=True))")
        return self.memory.losses(batch.new_items, batch.user[batch.new_rows, 0])

    def begin_epoch(self, epoch: int) -> list[nn.Parameter]:
        """Empty the memory before an epoch; returns the parameters that were set anew, whose optimiser state is void.

        An epoch replays time from its start. A memory that still held the last epoch would answer for events that lie
        in the future of the samples it is asked about, and the tower would learn to trust it more than it may.
        """
        if self.memory is None:
            return []
        self.memory.memory.reset_values()
        return [self.memory.memory.values]

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Parameters whose gradient is sparse rows: the values of the memory."""
        return [] if self.memory is None else self.memory.memory.values_parameters()

    def memory_layer(self) -> MemoryLayer | None:
        """The memory block, if the model has one."""
        return None if self.memory is None else self.memory.memory

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each part, and in all."""
        parts = {
            "embeddings": [self.user_embedding, self.item_embedding, self.context_embedding],
            "interest": [self.interest],
            "memory": [] if self.memory is None else [self.memory],
            "tower": [self.tower, *(each for each in (self.gate, self.memory_logit) if each is not None)],
        }
        counts = {name: sum(p.numel() for part in of for p in part.parameters()) for name, of in parts.items()}
        return counts | {"total": sum(counts.values())}


def _tower(width: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for wide in hidden:
        layers += [nn.Linear(width, wide), nn.ReLU(), nn.Dropout(dropout)]
        width = wide
    return nn.Sequential(*layers, nn.Linear(width, 1))
