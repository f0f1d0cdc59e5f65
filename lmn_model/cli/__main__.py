"""``python -m lmn_model.cli`` is the command ``lmn``."""

from __future__ import annotations

import sys

from lmn_model.cli.main import main

sys.exit(main())
