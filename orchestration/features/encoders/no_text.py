"""Items without any text: one zero each, so that an item's ID follows from behaviour alone (the factors of the tokenizer)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestration.features.encoders.base import EncoderState

KIND = "none"


class NoText:
    """Stands in for the configured encoder while a catalogue has nothing to read."""

    @property
    def width(self) -> int:
        return 1

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.zeros((len(texts), self.width), np.float32)

    def state(self) -> EncoderState:
        return EncoderState({"encoder": KIND})
