"""Measurements, their records (results/*.jsonl) and the page made of them (RESULTS.md)."""
