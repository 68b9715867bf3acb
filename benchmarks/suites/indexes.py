"""Indexes of unit vectors, ours and the peers', behind one face: add one key, search one key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptkit.runtime.cache_index import ExactIndex, ListIndex
from benchmarks.harness.peers import Peers

Array = np.ndarray[Any, Any]
NEIGHBOURS, EFFORT = 16, 64
"""Of the graphs of HNSW, everybody's: links of a node, and candidates that a search keeps."""


@dataclass(frozen=True)
class Face:
    """An empty index.

    Args:
        add: Stores a key in a slot.
        search: Gives the slot of the nearest key.
        exact: Whether it always finds the nearest.
    """

    add: Callable[[int, Array], object]
    search: Callable[[Array], int]
    exact: bool


@dataclass(frozen=True)
class Needs:
    """What an index is made for.

    Args:
        capacity: Keys.
        dimensions: Of a key.
        centres: Of the lists of those that have lists.
        probes: Lists that a search looks into.
    """

    capacity: int
    dimensions: int
    centres: Array
    probes: int


def ours(_: None, needs: Needs) -> dict[str, Face]:
    """Give adaptkit's two; their searches also find the nearest key with another answer."""

    def face(index: ExactIndex | ListIndex, exact: bool) -> Face:
        return Face(
            lambda slot, key: index.add(slot, key, slot % 10), lambda key: index.search(key[None])[0].slot, exact
        )

    return {
        "adaptkit, exact": face(ExactIndex(needs.capacity, needs.dimensions), True),
        "adaptkit, lists": face(ListIndex(needs.capacity, needs.centres, needs.probes), False),
    }


def faiss(module: Any, needs: Needs) -> dict[str, Face]:
    """Give faiss's: flat, inverted lists with the same centres, and a graph."""
    module.omp_set_num_threads(1)

    def face(index: Any, exact: bool) -> Face:
        return Face(lambda _, key: index.add(key[None]), lambda key: int(index.search(key[None], 1)[1][0, 0]), exact)

    flat = module.IndexFlatIP(needs.dimensions)
    coarse = module.IndexFlatIP(needs.dimensions)
    lists = module.IndexIVFFlat(coarse, needs.dimensions, len(needs.centres), module.METRIC_INNER_PRODUCT)
    coarse.add(needs.centres)
    lists.is_trained, lists.nprobe = True, needs.probes
    graph = module.IndexHNSWFlat(needs.dimensions, NEIGHBOURS, module.METRIC_INNER_PRODUCT)
    graph.hnsw.efSearch = EFFORT
    return {"faiss, exact": face(flat, True), "faiss, lists": face(lists, False), "faiss, graph": face(graph, False)}


def hnswlib(module: Any, needs: Needs) -> dict[str, Face]:
    """Give hnswlib's: brute force and a graph."""
    brute = module.BFIndex(space="ip", dim=needs.dimensions)
    brute.init_index(max_elements=needs.capacity)
    graph = module.Index(space="ip", dim=needs.dimensions)
    graph.init_index(max_elements=needs.capacity, M=NEIGHBOURS, ef_construction=200, random_seed=0)
    graph.set_ef(EFFORT)
    for index in (brute, graph):
        index.set_num_threads(1)

    def face(index: Any, exact: bool) -> Face:
        return Face(
            lambda slot, key: index.add_items(key[None], np.array([slot])),
            lambda key: int(index.knn_query(key[None], k=1)[0][0, 0]),
            exact,
        )

    return {"hnswlib, exact": face(brute, True), "hnswlib, graph": face(graph, False)}


def usearch(module: Any, needs: Needs) -> dict[str, Face]:
    """Give usearch's: one graph, searched whole and as a graph."""
    index = module.Index(
        ndim=needs.dimensions, metric="ip", dtype="f32", connectivity=NEIGHBOURS, expansion_search=EFFORT
    )

    def search(key: Array, exact: bool) -> int:
        return int(index.search(key, 1, exact=exact, threads=1).keys[0])

    def add(slot: int, key: Array) -> object:
        return index.add(slot, key, threads=1)

    return {
        "usearch, graph": Face(add, lambda key: search(key, False), False),
        "usearch, exact": Face(lambda slot, key: None, lambda key: search(key, True), True),
    }


MAKERS: dict[str, tuple[Callable[[Any, Needs], dict[str, Face]], str]] = {
    "faiss-cpu": (faiss, ""),
    "usearch": (usearch, ".index"),
    "hnswlib": (hnswlib, ""),
}


def indexes(peers: Peers, needs: Needs) -> dict[str, Face]:
    """Make one of each kind that is there."""
    found = ours(None, needs)
    for name, (make, part) in MAKERS.items():
        module = peers.module(name, part)
        if module is not None:
            found |= make(module, needs)
    return found
