"""The demo's job learns what the demo promises."""

import pytest
import torch

from examples.digits import TEST_SAMPLES, Digits, digits
from tests.examples.training import evaluate, train

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: examples)")


def test_the_test_images_are_not_trained_on() -> None:
    train_images, train_labels = digits(train=True)
    test_images, test_labels = digits(train=False)
    assert len(test_labels) == TEST_SAMPLES
    assert len(train_labels) + len(test_labels) == 1797
    # Two of the 1,797 images could be equal by themselves, but not many.
    distances = torch.cdist(test_images.flatten(1), train_images.flatten(1)).min(dim=1).values
    assert int((distances == 0).sum()) < 3


def test_the_split_is_the_same_every_time() -> None:
    for one, other in zip(digits(train=True), digits(train=True), strict=True):
        assert torch.equal(one, other)


def test_digits_reaches_97_percent() -> None:
    job = Digits()
    untrained = evaluate(job, job.model().eval())["accuracy"]
    trained = evaluate(job, train(job, rounds=60, batch=23 * 16))["accuracy"]
    assert untrained < 0.5
    assert trained >= 0.97
