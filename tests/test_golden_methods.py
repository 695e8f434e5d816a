"""Ways of training against the numbers of the published codes."""

import dataclasses

import golden_methods
import jax
import numpy as np
import pytest
from golden import folders, in_precision

from jmer.data.emotion_wheel import similarities
from jmer.training.modulation import balance, coefficients

FILES = {path: golden_methods.method_of(path) for folder in folders() for path in sorted(folder.glob("*.npz"))}


def files(method):
    return pytest.mark.parametrize("path", [path for path, one in FILES.items() if one == method], ids=lambda p: p.stem)


def read(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


@files("curriculum")
def test_the_improved_curriculum(path):
    arrays = read(path)
    conversations, curriculum = golden_methods.conversations_of(arrays), golden_methods.curriculum_of(arrays)
    # There is no shift from an emotion to itself.
    shift = ~np.eye(len(arrays["emotions"]), dtype=bool)
    found = similarities(arrays["emotions"].tolist())
    np.testing.assert_allclose(found[shift], arrays["similarity"][shift], atol=1e-12)
    # What a shift counts, summed, and the number of shifts: difficulty times its denominator.
    unweighted = dataclasses.replace(curriculum, shift_weights=np.ones_like(curriculum.shift_weights))
    size = np.array([len(c) + len(set(c.speakers)) for c in conversations])
    speakers = np.array([len(set(c.speakers)) for c in conversations])
    for one, name in ((curriculum, "weighted_shifts"), (unweighted, "shifts")):
        found = np.array([one.difficulty(c) for c in conversations])
        np.testing.assert_allclose(found * size - speakers, arrays[name], atol=1e-10)
    found = [curriculum.difficulty(c) for c in conversations]
    np.testing.assert_allclose(found, arrays["difficulty"], rtol=1e-12)
    np.testing.assert_array_equal(np.argsort(found, kind="stable"), arrays["order"])
    used = np.zeros_like(arrays["used_in_epoch"], bool)
    for epoch, positions in enumerate(curriculum.epochs(conversations, len(used))):
        used[epoch, positions] = True
    np.testing.assert_array_equal(used, arrays["used_in_epoch"])


@files("modulation")
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-10)], ids=["float32", "float64"])
def test_classifier_guided_modulation(path, dtype, tolerance):
    arrays = read(path)

    @jax.jit
    def step(accuracies, previous, kernel, heads):
        weights = coefficients(accuracies, previous, guard="none")
        return weights, *jax.value_and_grad(balance)(kernel, list(heads), weights)

    with jax.enable_x64(dtype is np.float64):
        previous = np.zeros_like(arrays["accuracies"][0])
        for number, accuracies in enumerate(arrays["accuracies"]):
            given = (accuracies, previous, arrays["fusion_kernel"][number], arrays["head_kernels"][number])
            found = step(*in_precision(given, dtype))
            for value, name in zip(found, ("coefficients", "balance", "balance_gradient"), strict=True):
                assert value.dtype == dtype
                np.testing.assert_allclose(value, arrays[name][number], rtol=tolerance, atol=tolerance, err_msg=name)
            previous = accuracies
