"""Analyses of trained runs that differ only in their seed: robustness, calibration, fusion weights, and others."""
