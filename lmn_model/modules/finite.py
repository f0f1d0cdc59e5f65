"""Whether what goes into a module is finite: a check to switch on while looking for NaN."""

from __future__ import annotations

from torch import Tensor

from lmn_kernels.library import opaque


@opaque  # whether a row is finite is read on the host
def check_finite(op: str, name: str, rows: Tensor, places: Tensor | None = None) -> None:
    """Raise ``ValueError`` unless ``rows [B, ...]`` are finite, with the count and the first row that is not.

    It waits for the device.

    Args:
        op: the module, for the message.
        name: of the argument that holds the rows.
        rows: float ``[B, ...]``.
        places: int64 ``[B]``, the row of the argument that each of ``rows`` is; None if they are the argument's own.
    """
    finite = rows.detach().isfinite()
    if finite.all():
        return
    wrong = (~finite).flatten(1).any(1).nonzero().squeeze(1)
    first = int(wrong[0] if places is None else places[wrong].min())
    raise ValueError(
        f"{op}: {name} must be finite, got {int((~finite).sum())} numbers that are NaN or infinite, the first in row "
        f"{first}"
    )
