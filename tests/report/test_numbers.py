import pytest

from adaptkit.report import numbers


def test_missing_values_are_dashes():
    found = [numbers.digits(None), numbers.si(None), numbers.percent(None), numbers.times(None)]
    assert [*found, numbers.points(None, 0.5), numbers.points(0.5, None)] == ["–"] * 6


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.05, "0.0500"), (131.04, "131"), (12345.6, "12,346"), (3e-7, "3.00e-07"), (float("inf"), "inf")],
)
def test_digits(value, text):
    assert numbers.digits(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.000 kB"), (999_960, "1.000 MB"), (25_557_032, "25.56 MB")]
)
def test_si(value, text):
    assert numbers.si(value, "B") == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(1.001, "the same"), (2.0, "2.00 × faster"), (0.5, "2.00 × slower"), (12.34, "12.3 × faster")]
)
def test_times(ratio, text):
    assert numbers.times(ratio, "faster", "slower") == text


def test_points_of_both_directions():
    assert numbers.points(0.90, 0.91) == "1.00 points gained"
    assert numbers.points(0.90, 0.90001) == "nothing lost"


def test_ratio_of_nothing_is_none():
    assert numbers.ratio_of(3, 0) is None
    assert numbers.ratio_of(None, 2) is None
    assert numbers.ratio_of(3, 2) == 1.5
