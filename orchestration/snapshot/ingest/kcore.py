"""The k-core of the user-item graph: the largest part in which every user and every item has at least k interactions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diger_core.progress import Progress, Silent

Codes = npt.NDArray[np.int32]


def k_core(user_E: Codes, item_E: Codes, k: int, progress: Progress | None = None) -> npt.NDArray[np.bool_]:
    """[E] bool: whether each interaction belongs to the k-core; repeated (user, item) pairs count as often as they occur.

    Drops users and items below k, again and again, until none is left to drop. The core is unique, so the order of the rows and
    of the droppings does not matter. Time and memory are linear in E per round.
    """
    progress = progress or Silent()
    kept = np.ones(len(user_E), bool)
    if k <= 1 or len(user_E) == 0:
        return kept
    place = np.arange(len(user_E))
    for number in range(1, len(user_E) + 2):
        user, item = user_E[place], item_E[place]
        stays = (np.bincount(user) >= k)[user] & (np.bincount(item) >= k)[item] if len(place) else np.ones(0, bool)
        if stays.all():
            progress.message(f"{k}-core: {len(place):,} of {len(user_E):,} interactions left after {number} rounds")
            break
        place = place[stays]
    kept[:] = False
    kept[place] = True
    return kept
