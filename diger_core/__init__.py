"""DIGER: an item tokenizer and a generative recommender trained together, so that recommendations reshape the items' semantic IDs.

Runs on torch, numpy, pyarrow, safetensors and fsspec alone. In reading order, with the symbols that the files carry (N items, V unique items of a
batch, B rows, M levels, K codes, S suffix values, d_e code width, d model width, L history items, W beams):

    config.py         every knob, typed and checked; presets.py: the published settings
    sequences.py      events -> users' histories as item indices; leave-one-out splits
    item_factors.py   factors of who bought what with what, from training events
    tokenizer.py      x_v -> z_v -> residual codes c_1..c_M: the RQ-VAE and its warm-up (kmeans.py)
    noise.py          Gumbel noise keyed by (seed, step, level, item)
    assignment.py     logits l, noise sigma g, soft y, sampled c, hard-forward P = onehot(k) + (y - sg y)
    schedules/        how sigma decays: none, gumbel, gaussian, linear, cosine, exponential, sdud, frqud, sdud+frqud
    recommender.py    the encoder-decoder over token tables T_1..T_{M+1}
    joint_step.py     one differentiable step: L_gen + L_vq + L_recon, three gradient paths
    training.py       the loop for frozen and joint models: steps, ID table, validation, best state, alarm (batches.py, optimisation.py,
                      validation.py, monitors.py, training_state.py, checkpoint.py, distributed.py, dropout.py)
    capture.py, fast/ the same step over fused kernels, captured in CUDA graphs
    id_table.py       codes by argmin (or Sinkhorn), stable suffixes, the assignment's hash
    stability.py      a table that follows a released one: pinned, anchored or free; what changed: id_diff.py, alignment.py
    trie.py, beam.py  every beam a real item
    evaluation.py     full ranking, item-level, beside most popular and Markov (baselines.py, metrics.py)
    sasrec.py         an item-level reference of the same width, and with transitions.py beside it a teacher: distillation.py draws targets from it
    canonical.py, storage.py, store.py   content hashes, atomic files, immutable artefacts and append-only records

Import what you need from its module; this package imports nothing by itself, so that `import diger_core` costs nothing.
"""
