"""The models as their papers' authors write them in PyTorch, to measure against and to compare numbers with."""
