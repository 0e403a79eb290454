"""From an item's vector to its codes: the RQ-VAE with its warm-up, and k-means for the first codebooks."""
