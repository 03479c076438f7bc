"""The embedded digits: what ships is what the data README says it is."""

from __future__ import annotations

from importlib.resources import files
from typing import get_args

import numpy as np
import pytest

from neurofail.data import Name, digits, digits_test
from neurofail.errors import InputError


@pytest.mark.parametrize(
    ("name", "widths", "activation"),
    [
        ("sigmoid", (64, 64, 32, 10), "sigmoid"),
        ("relu", (64, 64, 32, 10), "relu"),
        ("deep", (64, 48, 48, 32, 10), "relu"),
    ],
)
def test_shapes_and_activations(name: Name, widths: tuple[int, ...], activation: str) -> None:
    net = digits(name)
    assert net.widths == widths
    assert [phi.name for phi in net.activations] == [activation] * net.depth + ["identity"]
    assert (net.low == 0).all()
    assert (net.high == 1).all()


@pytest.mark.parametrize("name", get_args(Name))
def test_accuracy_on_images_it_has_not_seen(name: Name) -> None:
    inputs, labels = digits_test()
    assert np.mean(digits(name)(inputs).argmax(axis=1) == labels) >= 0.95


@pytest.mark.parametrize("name", get_args(Name))
def test_numbers_are_exact_in_float32(name: Name) -> None:
    net = digits(name)
    for array in (*net.weights, *net.biases):
        assert (array == array.astype(np.float32)).all()


def test_the_held_out_set() -> None:
    inputs, labels = digits_test()
    assert inputs.dtype == np.float64
    assert labels.dtype == np.int64
    assert inputs.shape == (540, 64)
    digits("relu").check_inputs(inputs)  # raises on any number outside [0, 1]
    assert inputs.max() == 1
    assert (16 * inputs == np.rint(16 * inputs)).all()
    # Stratified: 30 % of each digit's 174 to 183 images, 52.2 to 54.9.
    assert set(np.bincount(labels, minlength=10)) <= {52, 53, 54, 55}


def test_the_held_out_set_is_the_original_in_part() -> None:
    """Every image and its label stand in the set that scikit-learn ships, so the labels are not shuffled."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    original = {(*image, label) for image, label in zip(images, labels, strict=True)}
    held = {(*(16 * image), label) for image, label in zip(*digits_test(), strict=True)}
    assert len(held) == 540
    assert held <= original


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match=r"'tanh' is unknown; known are sigmoid, relu, deep"):
        digits("tanh")  # type: ignore[arg-type]  # the point of the test


def test_the_attribution_ships_with_the_data() -> None:
    text = (files("neurofail.data") / "README.md").read_text(encoding="utf-8")
    for owed in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0", "What was changed"):
        assert owed in text
