"""Models beside each other on corpora: scores over seeds, size and speed."""
