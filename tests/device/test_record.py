"""Records: fields with defaults, equal by value, not to be changed."""

import copy
import pickle

import pytest

from aeedge.record import Record


class Point(Record):
    x: float
    y: float = 2.0

    @property
    def sum(self):
        return self.x + self.y


def test_values_by_place_and_by_name():
    assert Point(1.0) == Point(x=1.0) == Point(1.0, 2.0) == Point(y=2.0, x=1.0)
    assert (Point(1.0).x, Point(1.0).y, Point(1.0).sum) == (1.0, 2.0, 3.0)
    assert Point._fields == ("x", "y")
    assert repr(Point(1.0)) == "Point(x=1.0, y=2.0)"


@pytest.mark.parametrize(
    ("values", "named"), [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1})]
)
def test_other_values_are_refused(values, named):
    with pytest.raises(TypeError, match="Point: expected"):
        Point(*values, **named)


def test_it_cannot_be_changed():
    point = Point(1.0)
    with pytest.raises(AttributeError, match=r"Point\.x cannot be changed"):
        point.x = 3.0
    assert point._replace(x=3.0) == Point(3.0)
    assert point == Point(1.0)


def test_equal_only_to_its_like():
    class Other(Record):
        x: float
        y: float

    assert Point(1.0) != Other(1.0, 2.0)
    assert Point(1.0) != (1.0, 2.0)
    assert len({Point(1.0), Point(1.0), Point(2.0)}) == 2


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies_are_equal(again):
    assert again(Point(1.0, 3.0)) == Point(1.0, 3.0)
