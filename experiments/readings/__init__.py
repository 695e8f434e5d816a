"""Which reading of a paper's gaps fits best: one factor at a time around the default."""
