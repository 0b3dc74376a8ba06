"""Figures of layer preference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bids_brainlm.report import style


def preferred(spaces: Mapping[str, np.ndarray]) -> bytes:
    """Draw how many parcels prefer each layer, one bar a feature space.

    Parameters
    ----------
    spaces : mapping of str to array, shape (n_parcels,)
        Preferred layer of each parcel by the space's name; NaN where there is none.

    Returns
    -------
    bytes
        SVG.
    """
    known = {name: values[np.isfinite(values)].astype(int) for name, values in spaces.items()}
    last = max((int(v.max()) for v in known.values() if len(v)), default=1)
    numbers = np.arange(1, last + 1)
    width = 0.8 / len(known)
    with style.drawing():
        fig = style.figure(2.6)
        axes = fig.subplots()
        for k, (name, values) in enumerate(known.items()):
            share = np.array([(values == layer).sum() for layer in numbers]) / max(len(values), 1)
            place = numbers + (k - (len(known) - 1) / 2) * width
            axes.bar(place, 100 * share, width, label=name, color=style.PALETTE[k % 7])
        axes.set_xticks(numbers[:: -(-len(numbers) // 16)])
        axes.set_xlabel("layer")
        axes.set_ylabel("parcels (%)")
        axes.legend(loc="upper left", bbox_to_anchor=(0, 1.2), ncols=len(known))
        return style.svg(fig)
