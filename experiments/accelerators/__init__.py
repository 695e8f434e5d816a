"""What the compilers for TPUs and NVIDIA GPUs make of jmer's models, on a machine that has neither."""
