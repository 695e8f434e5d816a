"""The tables and figures of the papers: declarations, runs and reports."""
