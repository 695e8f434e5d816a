"""Analyses of trained runs that differ by their seed: what the scores of a table do not tell."""
