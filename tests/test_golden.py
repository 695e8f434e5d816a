"""Every model against the published code's own numbers: logits, losses and gradients of its parameters."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_methods import method_of
from packed import apart, packed

FILES = [path for folder in golden.folders() for path in sorted(folder.glob("*.npz")) if not method_of(path)]


def padded(batch, columns):
    """The batch with more padding, which holds garbage."""

    def longer(x, value):
        return np.pad(x, ((0, 0), (0, columns), *[(0, 0)] * (x.ndim - 2)), constant_values=value)

    return batch.replace(
        features={m: longer(x, 1e3) for m, x in batch.features.items()},
        mask=longer(batch.mask, False),
        labels=longer(batch.labels, -1),
        speakers=longer(batch.speakers, -1),
        available={m: longer(x, False) for m, x in batch.available.items()},
    )


def computed(path, batch, dtype):
    """What jmer computes of a file's parameters and a batch: logits, losses, their gradients, and other outputs."""
    file = golden.read_golden(path)
    adapter = golden.adapter_of(file)
    models = {"loss": golden.build(file, adapter)}
    models |= {
        name: golden.build(file, adapter, **fields) for name, fields in adapter.losses.items() if name in file.arrays
    }

    def objective(params, batch, name):
        variables = golden.variables_of(params, adapter)
        output = models[name].module.apply(variables, batch, train=False)
        terms = {
            term: (weight, total / jnp.where(count > 0, count, 1))
            for term, (weight, total, count) in models[name].loss_terms(output, batch).items()
        }
        means = {term: mean for term, (_, mean) in terms.items()}
        loss = sum((weight * mean for weight, mean in terms.values()), jnp.zeros(()))
        return loss, (output.logits, adapter.outputs(output, means, batch))

    @jax.jit
    def everything(params, batch):
        return {name: jax.value_and_grad(objective, has_aux=True)(params, batch, name) for name in models}

    return file, adapter, jax.device_get(everything(*golden.in_precision((dict(file.params), batch), dtype)))


def check(path, batch, dtype, logits_of, tolerance=None):
    """Compares everything; `logits_of` picks a file's utterances from values `[B, T, ...]`."""
    file, adapter, results = computed(path, batch, dtype)
    tolerance = dict.fromkeys(("rtol", "atol"), tolerance or adapter.tolerance(file))
    assert set(file.gradients) <= set(results), "a loss of the file that the adapter does not name"
    for name, ((loss, (logits, _)), gradients) in results.items():
        np.testing.assert_allclose(logits_of(logits), file.logits, **tolerance)
        np.testing.assert_allclose(loss, file[name], **tolerance, err_msg=name)
        for parameter, expected in file.gradients.get(name, {}).items():
            np.testing.assert_allclose(gradients[parameter], expected, **tolerance, err_msg=f"{name} by {parameter}")
    for name, value in results["loss"][0][1][1].items():
        value = logits_of(value) if value.shape[:2] == batch.mask.shape else value
        np.testing.assert_allclose(value, file[name], **tolerance, err_msg=name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_equals_the_published_code_in_single_precision(path):
    batch = golden.from_golden(path)[2]
    check(path, batch, np.float32, lambda logits: logits[batch.mask], tolerance=1e-5)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_equals_the_published_code_in_packed_rows_and_double_precision(path):
    """The conversations in two rows with padding after them, so that borders and padding are met together."""
    batch = golden.from_golden(path)[2]
    lengths = batch.mask.sum(1)
    order = [list(range(1, len(lengths))), [0]]
    length = max(int(lengths[chosen].sum()) for chosen in order) + 3
    together = packed(padded(batch, 1), order, length)

    def logits_of(logits):
        return apart(logits, together, batch)[batch.mask]

    with jax.enable_x64(True):
        check(path, together, np.float64, logits_of)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_hold_what_is_hard(path):
    _, _, batch, arrays = golden.from_golden(path)
    lengths = batch.mask.sum(1)
    assert len(set(lengths)) > 1 and len(np.unique(batch.labels[batch.mask])) > 2
    assert any(name.startswith("grad") for name in arrays)


def test_a_file_is_known_by_what_it_holds(tmp_path):
    path = FILES[0]
    (tmp_path / "other.npz").write_bytes(path.read_bytes())
    model, variables, _, _ = golden.from_golden(tmp_path / "other.npz")
    assert model.module == golden.from_golden(path)[0].module
    assert jax.tree.structure(variables) == jax.tree.structure(golden.from_golden(path)[1])


def test_each_file_is_of_one_model_and_each_adapter_has_a_file():
    found = {golden.adapter_of(golden.read_golden(path)).model for path in FILES}
    assert found == {adapter.model for adapter in golden.adapters()}
