"""The step on an accelerator: the recommender's forward and backward written out by hand over a few fused kernels, captured in CUDA graphs.

`program.py` is the recommender, `codes.py` the assignment, `rows.py` a batch put together on the device, `flat.py` the parameters in one buffer;
`kernels.py` chooses between `triton_kernels.py` (CUDA) and plain torch operations (everywhere: what the tests compare with autograd).
`captured.py` puts them together. `training/joint_step.py` and `recommender/model.py` stay the reference: the fast path computes the same numbers.
"""
