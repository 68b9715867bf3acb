import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptkit.errors import ModelError
from adaptkit.quantization import Grid, QuantizationPlan
from adaptkit.quantization.plan import Accumulator, ExampleInput

scales = st.floats(2**-60, 2**60, width=32)
channel_grids = st.lists(scales, min_size=1, max_size=5).map(lambda s: Grid(tuple(s), (0,) * len(s), axis=0))
tensor_grids = st.builds(lambda scale, zero: Grid((scale,), (zero,), bits=8, signed=False), scales, st.integers(0, 255))


@given(st.dictionaries(st.text(min_size=1, max_size=9), channel_grids | tensor_grids, max_size=4))
def test_a_plan_survives_json(tensors):
    kept = {"conv2d": Accumulator(12, 4, "wrap", 2)}
    inputs = (ExampleInput((1, 3, 8, 8)), ExampleInput((1, 5), "int64"))
    plan = QuantizationPlan(tensors, inputs, ("linear",), {"linear_1.weight": "float16"}, kept)
    assert QuantizationPlan.from_json(plan.to_json()) == plan
    assert QuantizationPlan.from_json(plan.to_json()).to_json() == plan.to_json()


@pytest.mark.parametrize(
    ("bits", "signed", "ends"),
    [(8, True, (-128, 127)), (8, False, (0, 255)), (7, True, (-64, 63)), (32, True, (-(2**31), 2**31 - 1))],
)
def test_the_ends_of_a_grid(bits, signed, ends):
    assert (Grid((1.0,), (0,), 2, odd=True).lowest, Grid((1.0,), (0,), 1, odd=True).highest) == (-3, 1)
    grid = Grid((1.0,), (0,), bits, signed)
    assert (grid.lowest, grid.highest) == ends


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": (1.0, 2.0), "zero_point": (0,), "axis": 0}, "2 scales and 1 zero points"),
        ({"scale": (1.0, 2.0), "zero_point": (0, 0)}, "2 scales need an axis"),
        ({"scale": (0.0,), "zero_point": (0,)}, "positive and finite"),
        ({"scale": (float("inf"),), "zero_point": (0,)}, "positive and finite"),
        ({"scale": (1.0,), "zero_point": (200,)}, "between -128 and 127"),
        ({"scale": (1.0,), "zero_point": (1,), "bits": 2, "odd": True}, "signed, symmetric"),
        ({"scale": (1.0,), "zero_point": (0,), "bits": 8, "odd": True}, "at most 7 bits"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ModelError, match=message):
        Grid(**fields)


@pytest.mark.parametrize("text", ["", "[]", '{"version": 3}', '{"version": 3, "inputs": [], "tensors": {"a": {}}}'])
def test_a_damaged_plan_is_refused(text):
    with pytest.raises(ModelError, match="damaged"):
        QuantizationPlan.from_json(text)


@pytest.mark.parametrize("version", [2, 99])
def test_a_plan_of_another_version_is_refused(version):
    with pytest.raises(ModelError, match=f"version {version}: this adaptkit reads 3, quantize the model again"):
        QuantizationPlan.from_json(f'{{"version": {version}, "inputs": [[1, 3, 8, 8]], "tensors": {{}}}}')


def test_an_input_of_a_type_without_values_is_refused():
    with pytest.raises(ModelError, match="an input is of type complex64"):
        ExampleInput((1, 4), "complex64")
