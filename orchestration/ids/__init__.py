"""The released table of semantic IDs (`semantic_ids`), and which IDs a retraining moved (`id_diff`)."""
