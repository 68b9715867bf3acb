import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptkit.pruning.union_find import UnionFind


def _slow(count, pairs):
    """Paint every member of the second set in the colour of the first, pair by pair."""
    colour = list(range(count))
    for a, b in pairs:
        low, high = sorted((colour[a], colour[b]))
        colour = [low if one == high else one for one in colour]
    return colour


@settings(deadline=None)
@given(st.data())
def test_sets_are_those_of_painting(data):
    count = data.draw(st.integers(1, 40))
    element = st.integers(0, count - 1)
    rounds = data.draw(st.lists(st.lists(st.tuples(element, element), min_size=1, max_size=30), max_size=3))
    frozen = data.draw(st.lists(element, max_size=3))
    sets = UnionFind()
    sets.new(count)
    sets.freeze(np.array(frozen, dtype=np.int64))
    joined = []
    for pairs in rounds:
        sets.union(*np.array(pairs).T)
        joined += pairs
        assert sets.roots().tolist() == _slow(count, joined)
    colours = _slow(count, joined)
    cold = {colours[one] for one in frozen}
    assert sets.frozen().tolist() == [colour in cold for colour in colours]


def test_a_long_chain_is_one_set():
    sets = UnionFind()
    ids = sets.new(20_000)
    order = np.random.default_rng(0).permutation(ids)
    sets.union(order[1:], order[:-1])
    assert (sets.roots() == 0).all()


def test_broadcasting_joins_a_column_with_its_rows():
    sets = UnionFind()
    parts = sets.new(6).reshape(2, 3)
    sets.union(parts[:, :1], parts)
    assert sets.roots().tolist() == [0, 0, 0, 3, 3, 3]
