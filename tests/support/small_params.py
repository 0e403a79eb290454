"""Parameters under which a whole run of a few dozen items takes seconds, and its gate lets an untrained model pass."""

TINY = """\
tokenizer: {epochs: 2, codes: 4, item_factors: 4, hidden: [16], code_dim: 8}
recommender: {encoder_layers: 1, decoder_layers: 1, d_model: 8, d_ff: 16, heads: 1, d_head: 8, history: 5}
training: {epochs: 1, batch_size: 64}
evaluation: {beams: 20, bootstrap: 100}
gate: {bootstrap: 100, beat_baseline: false, beat_most_popular: false, min_unique_prefixes: 0, min_coverage: 0}
cluster: {workers: 0}
"""
