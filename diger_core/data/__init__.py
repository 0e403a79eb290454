"""Events as arrays: users' histories, batches of training rows, factors and transitions counted from training events."""
