"""Search for hyperparameters, the same for every model."""
