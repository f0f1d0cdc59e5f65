"""What a run reports: log lines, warnings, plots, and the environment that it ran in."""
