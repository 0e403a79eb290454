"""Full ranking of all items for held-out events: metrics with intervals, and the baselines that a model must beat."""
