"""Settings of the study's runs: those of ``lmn train``, and what ablations change about a factored memory.

A run of these settings builds an :class:`benchmarks.study.ablations.AblatedMemoryNetwork`, for settings decide which
network a model has. ``lmn`` reads the settings file of such a run only if they describe the library's own network.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

from benchmarks.study.ablation_options import check_together
from lmn_model.ctr.settings import CollaborativeSettings, MemorySettings, ModelSettings
from lmn_model.setting_types import setting
from lmn_model.training.settings import Settings

if TYPE_CHECKING:
    from lmn_model.data import FeatureSpec
    from lmn_model.modules import FactoredMemoryNetwork, LargeMemoryNetwork

OF_FACTORED = ("address", "target", "read_out", "keys", "code_metric")
"""Settings of a factored memory alone; the network has arguments of the same names, and ``loss``."""


@dataclass(frozen=True)
class StudyMemorySettings(MemorySettings):
    """The memory block, with what ablations change about it.

    Raises:
        ValueError: as :class:`MemorySettings`, or options of an ablation do not go together.
    """

    address: Literal["pair", "item", "user"] = setting(
        "pair", "factored memory: compute the address from item and user, or from one of them alone"
    )
    target: Literal["bound", "pair"] = setting(
        "bound",
        "factored memory: store the product of the fixed random codes of item and user, or the two side by side",
    )
    read_out: Literal["familiarity", "answer", "both"] = setting(
        "familiarity",
        "factored memory: give the tower how strongly the pair was stored (familiarity), the stored vector (answer), "
        "or both",
    )
    keys: Literal["product", "flat"] = setting(
        "product", "factored memory: find slots by two lists of sub-keys, or search a key of each slot"
    )
    code_metric: Literal["cosine", "dot", "l2"] = setting("cosine", "factored memory: similarity of query and key")
    loss: Literal["smooth_l1", "mse"] = setting("smooth_l1", "loss that trains the content of the slots")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != "factored":
            for each in fields(self):
                if each.name in OF_FACTORED and getattr(self, each.name) != each.default:
                    raise ValueError(
                        f"{each.name} has no effect for memory = {self.kind!r}, got {getattr(self, each.name)!r}"
                    )
        check_together(
            code_dim=self.code_dim,
            target=self.target,
            keys=self.keys,
            sub_keys=1 if self.sub_keys is None else self.sub_keys,
            address=self.address,
        )

    def network(
        self, features: FeatureSpec, item_dim: int, user_dim: int
    ) -> FactoredMemoryNetwork | LargeMemoryNetwork | None:
        """The memory of these settings, ablated."""
        from benchmarks.study.ablations import AblatedMemoryNetwork

        if self.kind == "factored":
            options = {name: getattr(self, name) for name in (*OF_FACTORED, "loss")}
            return AblatedMemoryNetwork(**self.factored_options(features), **options)
        network = super().network(features, item_dim, user_dim)
        if network is not None:
            network.loss = self.loss
        return network


@dataclass(frozen=True)
class StudyCollaborativeSettings(CollaborativeSettings):
    """Features from the events of all users, which a study has where it names them and not by the data."""

    profile_levels: int = setting(0, "levels of profiles, 0 for none")
    profile_signed: bool = setting(False, "write the samples with their labels to profiles")


@dataclass(frozen=True)
class StudyModelSettings(ModelSettings):
    """Shape of the CTR model of a study's run."""

    collaborative: StudyCollaborativeSettings = field(default_factory=StudyCollaborativeSettings)
    memory: StudyMemorySettings = field(default_factory=StudyMemorySettings)


@dataclass(frozen=True)
class StudySettings(Settings):
    """All settings of a study's run."""

    model: StudyModelSettings = field(default_factory=StudyModelSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model.has_memory and self.model.memory.keys == "flat" and self.training.reseed_every is not None:
            raise ValueError(f"reseed_every must be none for keys = 'flat', got {self.training.reseed_every}")
