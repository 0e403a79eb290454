"""The search for a decay schedule: a typed space, a journal of our own, and trials that are the joint model's own training."""
