"""Models beside each other by cross-validation: scores over folds and pooled."""
