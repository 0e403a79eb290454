"""Computes a stage once: the runner, what a stage gets, the registry of snapshots, and what a record says."""
