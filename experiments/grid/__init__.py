"""Grids of runs: rows (configurations on corpora) times seeds, trained by one or several processes, and read back."""
