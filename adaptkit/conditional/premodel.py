"""The premodel of a selector: features of an image, their nearest neighbours, and what these vote for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from adaptkit.conditional.image_features import ImageFeatures
from adaptkit.conditional.neighbours import Neighbours
from adaptkit.conditional.thresholds import Array
from adaptkit.export.nodes import Nodes
from adaptkit.runtime.selector import VOTES


def make_premodel(
    features: ImageFeatures,
    chosen: list[int],
    mean: Array,
    deviation: Array,
    asked: Sequence[Neighbours],
    opset: int = 20,
) -> onnx.ModelProto:
    """Make a model that votes on images.

    The nearest are the k least of |t|² − 2 f·t over the stored points t, which is |f − t|² less what is the same for
    all of them; of equally near ones the first stored is asked. The votes are the probabilities that scikit-learn's
    KNeighborsClassifier gives, whose order of equally near points is not defined.

    Args:
        features: What is computed of an image.
        chosen: Which of them count.
        mean: Of the chosen ones; taken off.
        deviation: Of the chosen ones; divided by.
        asked: Their votes stand side by side in the output.
        opset: ONNX operator set.
    """
    nodes = Nodes("premodel")
    found = nodes.add("Sub", features.add(nodes, chosen), nodes.constant(mean.astype(np.float32)))
    found = nodes.add("Div", found, nodes.constant(deviation.astype(np.float32)))
    votes = [_vote(nodes, found, each) for each in asked]
    width = sum(each.says.shape[1] for each in asked)
    return nodes.model(features.shape, nodes.add("Concat", *votes, axis=1), VOTES, width, opset)


def _vote(nodes: Nodes, found: str, asked: Neighbours) -> str:
    points = asked.points.astype(np.float32)
    towards = nodes.constant(np.ascontiguousarray(-2 * points.T))
    own = nodes.constant((points**2).sum(axis=1))
    distances = nodes.add("Gemm", found, towards, own)
    count = nodes.constant(np.array([asked.k], np.int64))
    places = nodes.add("TopK", distances, count, outputs=2, axis=1, largest=0)
    says = nodes.add("Gather", nodes.constant(asked.says.astype(np.float32)), places, axis=0)
    return nodes.mean(says, [1])
