"""The stages that train: `tokenizer`, `frozen_model`, `joint_model`, `refit`; starting warm from an earlier bundle."""
