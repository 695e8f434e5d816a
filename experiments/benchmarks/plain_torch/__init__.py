"""The models in plain PyTorch, in the style of the papers' authors: references for speed and for numbers."""
