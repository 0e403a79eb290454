"""The table of semantic IDs: codes and stable suffixes, how far released IDs may move, and what changed between two tables."""
