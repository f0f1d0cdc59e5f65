"""Studies: grids of training runs from one TOML file, and the tables and figures made of their results."""
