"""Small programs over jmer: baselines, the papers' tables and figures, benchmarks."""
