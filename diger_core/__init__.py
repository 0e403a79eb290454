"""DIGER: an item tokenizer and a generative recommender trained together, so that recommendations reshape the items' semantic IDs.

Runs on torch, numpy, pyarrow, safetensors and fsspec alone. docs/method.md has the formulas. In reading order, with the symbols that the files carry
(N items, V unique items of a batch, B rows, M levels, K codes, S suffix values, d_e code width, d model width, L history items, W beams):

config.py         every parameter, typed and checked; presets.py: the published settings
item_ids.py       the one join on item ids: which ids of two tables are the same

data/             sequences.py    events -> users' histories as item indices; splits
                  batches.py      rows of (history, target), in a resumable order
                  item_factors.py, neighbours.py    counted from training events; teacher.py, distillation.py: targets drawn from those
tokenizer/        rqvae.py        x_v -> z_v -> residual codes c_1..c_M: the RQ-VAE and its warm-up; kmeans.py: the first codebooks
training/         noise.py        Gumbel noise keyed by (seed, step, level, item)
                  assignment.py   logits l, noise sigma g, soft y, sampled c, hard-forward P = onehot(k) + (y - sg y)
                  schedules/      how sigma decays: none, gumbel, gaussian, linear, cosine, exponential, sdud, frqud, sdud+frqud
recommender/      model.py        the encoder-decoder over token tables T_1..T_{M+1}
training/         joint_step.py   one differentiable step: L_gen + L_vq + L_recon, three gradient paths
                  loop.py         the loop for frozen and joint models: steps, ID table, validation, best state, alarm
                  inputs.py, state.py, optimisation.py, distributed.py   what a run is given, what it holds, how it steps
                  table_refresh.py, model_selection.py, monitors.py      between two epochs: IDs, validation, alarms
                  checkpoint.py, resume.py                               killed and resumed equals uninterrupted
ids/              id_table.py     codes by argmin (or Sinkhorn), stable suffixes, the assignment's hash
                  stability.py    a table that follows a released one: pinned, anchored or free; id_diff.py, alignment.py: what changed
recommender/      trie.py, beam.py   every beam a real item; sasrec.py: a model that ranks items directly
evaluation/       ranking.py      full ranking, item-level; metrics.py; baselines.py: most popular and Markov
fast/             captured.py     the same step over fused kernels, captured in CUDA graphs
store/            canonical.py                   content hashes
                  files.py, durable.py           atomic files, on the disk before anything relies on them
                  faults.py, listing.py          errors of the object store in plain words; every file below a directory
                  artefact.py, artefacts.py      an immutable artefact; the store of artefacts and append-only records

Import what you need from its module; this package imports nothing by itself, so that `import diger_core` costs nothing.
"""
