"""The core without the pipeline: run one with `python -m examples.train_in_memory`."""
