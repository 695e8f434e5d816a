"""Speed of jmer's models, and of plain PyTorch versions of them."""
