"""Score an anomaly map that was modified (ignore mask) or assembled from tiles."""

from __future__ import annotations

import math

import numpy as np

from snl.registry import SCORERS
from snl.settings import MapSettings


def score_map(anomaly_map: np.ndarray, settings: MapSettings) -> float:
    """Return the raw score of one map (h, w), by the same formula as the network.

    The built-in scorers are computed in numpy. A plug-in's scorer is a function of tensors, so it
    needs PyTorch.
    """
    if settings.score == "max":
        return float(anomaly_map.max())
    if settings.score == "topk":
        count = max(1, math.ceil(settings.top_share * anomaly_map.size))
        return float(np.partition(anomaly_map, -count, axis=None)[-count:].mean(dtype=np.float64))
    import torch

    scorer = SCORERS.get(settings.score).load()
    return float(scorer(torch.from_numpy(np.ascontiguousarray(anomaly_map))[None], settings)[0])
