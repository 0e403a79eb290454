"""The stages that train: `tokenizer`, `frozen_model`, `joint_model`; starting warm from an earlier bundle."""
