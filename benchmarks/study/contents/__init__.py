"""What the memory of a run has kept, against the truth: ``lmn contents``."""
