"""The stages that train: `tokenizer`, `frozen_model`, `joint_model`, `refit`; the job that they run; starting warm from an earlier bundle."""
