"""Speed and memory of jmer's models, beside plain PyTorch versions of them."""
