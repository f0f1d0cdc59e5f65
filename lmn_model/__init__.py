"""Large Memory Network: torch modules, a CTR model and the ``lmn`` command on top of ``lmn_kernels``."""
