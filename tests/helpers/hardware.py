"""What this machine can run: a GPU, and Triton, on the GPU or in its interpreter."""

from __future__ import annotations

import importlib.util
import os

import torch

GPU = torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET", "0") != "1"
TRITON = importlib.util.find_spec("triton") is not None
