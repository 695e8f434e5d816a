"""Optimisers against a NumPy transcription of PyTorch's update rules, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmer.errors import UserError
from jmer.training.optimizer import make_optimizer

CONFIG = {
    "name": "adam_l2",
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "epsilon": 1e-8,
    "amsgrad": False,
    "clip_norm": 0.0,
    "schedule": "constant",
    "plateau_factor": 0.1,
    "plateau_patience": 10,
    "warmup_epochs": 0,
}
START = {"kernel": np.array([[0.5, -1.5], [2.0, 0.1]]), "bias": np.array([0.3, -0.2])}
STEPS = 6


def gradients():
    rng = np.random.default_rng(0)
    # The sizes differ, so that clipping acts in some steps only.
    return [{name: scale * rng.normal(size=x.shape) for name, x in START.items()} for scale in (3, 0.1, 1, 0.2, 5, 2)]


def adam(gradient, state, t, rate, epsilon=1e-8, amsgrad=False):
    """Kingma and Ba (2015), algorithm 1, with PyTorch's `amsgrad`; returns the update."""
    first = 0.9 * state.get("first", 0) + 0.1 * gradient
    second = 0.999 * state.get("second", 0) + 0.001 * gradient**2
    largest = np.maximum(state.get("largest", 0), second)
    state |= {"first": first, "second": second, "largest": largest}
    return -rate * (first / (1 - 0.9**t)) / (np.sqrt((largest if amsgrad else second) / (1 - 0.999**t)) + epsilon)


def fading_gradients(steps):
    """Gradients whose second moment falls in the end."""
    rng = np.random.default_rng(1)
    return [
        {name: 2.0 ** (-step / 100) * rng.normal(size=x.shape) for name, x in START.items()} for step in range(steps)
    ]


def reference(name, rates, weight_decay=0.0, clip_norm=0.0, given=None, **adams):
    """torch.nn.utils.clip_grad_norm_, then torch.optim.Adam, AdamW or SGD with weight_decay."""
    parameters, states = dict(START), {part: {} for part in START}
    for t, (gradient, rate) in enumerate(zip(given or gradients(), rates, strict=True), 1):
        norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        scale = min(1, clip_norm / norm) if clip_norm else 1
        for part, x in parameters.items():
            g = scale * gradient[part]
            if name == "adam_l2":
                parameters[part] = x + adam(g + weight_decay * x, states[part], t, rate, **adams)
            elif name == "adamw":
                parameters[part] = x * (1 - rate * weight_decay) + adam(g, states[part], t, rate, **adams)
            else:
                parameters[part] = x - rate * (g + weight_decay * x)
    return parameters


def run(config, steps=(2, 2, 2), first=None, given=None):
    """Returns the parameters after all updates; `first` = what differs in the optimizer that makes the first state."""
    optimizer = make_optimizer(CONFIG | config, steps=steps)
    parameters = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), START)
    state = make_optimizer(CONFIG | config | (first or {}), steps=steps).init(parameters)

    def update(carry, gradient):
        parameters, state = carry
        updates, state = optimizer.update(gradient, state, parameters)
        return (optax.apply_updates(parameters, updates), state), None

    stacked = jax.tree.map(lambda *rows: jnp.asarray(np.stack(rows), jnp.float32), *(given or gradients()))
    return jax.lax.scan(update, (parameters, state), stacked)[0][0]


@pytest.mark.parametrize("name", ["adam_l2", "adamw", "sgd"])
@pytest.mark.parametrize("changes", [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "clip_norm": 1.0}], ids=str)
def test_update_rules_are_pytorchs(name, changes):
    found, expected = run({"name": name} | changes), reference(name, [0.01] * STEPS, **changes)
    for part in START:
        np.testing.assert_allclose(found[part], expected[part], rtol=1e-5)


@pytest.mark.parametrize("name", ["adam_l2", "adamw"])
@pytest.mark.parametrize("changes", [{"epsilon": 0.5}, {"amsgrad": True}, {"epsilon": 0.5, "amsgrad": True}], ids=str)
def test_the_options_of_adam_are_pytorchs(name, changes):
    count, decay = 1000, {"weight_decay": 0.1}
    options = {"rates": [0.01] * count, "given": fading_gradients(count), **decay}
    expected, plain = reference(name, **options, **changes), reference(name, **options)
    found = run({"name": name} | decay | changes, steps=(count,), given=options["given"])
    for part in START:
        np.testing.assert_allclose(found[part], expected[part], rtol=1e-4, atol=1e-6)
        assert np.abs(expected[part] - plain[part]).max() > 1e-3


@pytest.mark.parametrize("name", ["adam_l2", "adamw"])
def test_the_options_of_adam_are_those_of_the_installed_pytorch(name):
    torch = pytest.importorskip("torch")
    parameters = {part: torch.tensor(x, requires_grad=True) for part, x in START.items()}
    options = {"lr": 0.01, "eps": 0.5, "weight_decay": 0.1, "amsgrad": True}
    rule = {"adam_l2": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](parameters.values(), **options)
    given = fading_gradients(1000)
    for gradient in given:
        for part, x in parameters.items():
            x.grad = torch.tensor(gradient[part])
        rule.step()
    changes = {"name": name, "epsilon": 0.5, "weight_decay": 0.1, "amsgrad": True}
    found = run(changes, steps=(1000,), given=given)
    for part, x in parameters.items():
        np.testing.assert_allclose(found[part], x.detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["adam_l2", "adamw", "sgd"])
def test_the_state_carries_the_rates(name):
    """So one program trains runs that differ by them."""
    rates = {"learning_rate": 0.02, "weight_decay": 0.3}
    config = {"name": name, "learning_rate": 0.5, "weight_decay": 0.9, "clip_norm": 1.0}
    expected = reference(name, [0.02] * STEPS, weight_decay=0.3, clip_norm=1.0)
    found = run(config, first=rates)
    for part in START:
        np.testing.assert_allclose(found[part], expected[part], rtol=1e-5)


def test_the_three_rules_and_the_clipping_differ():
    results = [
        reference(name, [0.01] * STEPS, weight_decay=0.1, clip_norm=clip)["kernel"]
        for name in ("adam_l2", "adamw", "sgd")
        for clip in (0.0, 1.0)
    ]
    for i, one in enumerate(results):
        for other in results[:i]:
            assert np.abs(one - other).max() > 1e-4


# Three epochs of two steps: the rate of each.
RATES = {
    ("constant", 0): [0.01] * 6,
    ("linear", 0): [0.01 * (1 - t / 6) for t in range(6)],
    ("cosine", 0): [0.01 * (1 + np.cos(np.pi * t / 6)) / 2 for t in range(6)],
    ("constant", 1): [0, 0.005, 0.01, 0.01, 0.01, 0.01],
    ("linear", 1): [0, 0.005, 0.01, 0.0075, 0.005, 0.0025],
    ("cosine", 2): [0, 0.0025, 0.005, 0.0075, 0.01, 0.005],
    ("constant", 3): [0.01 * t / 6 for t in range(6)],
}


@pytest.mark.parametrize(("schedule", "warmup"), RATES, ids=str)
@pytest.mark.parametrize("name", ["adam_l2", "sgd"])
def test_schedules_give_each_step_its_rate(name, schedule, warmup):
    found = run({"name": name, "schedule": schedule, "warmup_epochs": warmup})
    expected = reference(name, RATES[schedule, warmup])
    for part in START:
        np.testing.assert_allclose(found[part], expected[part], rtol=1e-5)


def test_epochs_may_differ_in_length():
    """Where a curriculum makes the first epochs shorter, the warm-up is shorter too, and the end stays where it is."""
    found = run({"name": "sgd", "schedule": "linear", "warmup_epochs": 2}, steps=(1, 1, 4))
    expected = reference("sgd", [0, 0.005, 0.01, 0.0075, 0.005, 0.0025])
    for part in START:
        np.testing.assert_allclose(found[part], expected[part], rtol=1e-5)


def test_a_step_may_take_the_memory_of_the_state():
    optimizer = make_optimizer(CONFIG | {"amsgrad": True}, steps=(2,))
    parameters = jax.tree.map(jnp.asarray, START)
    step = jax.jit(lambda state: optimizer.update(parameters, state, parameters)[1], donate_argnums=0)
    jax.block_until_ready(step(optimizer.init(parameters)))


def test_amsgrad_is_of_adam():
    with pytest.raises(UserError, match=r"^optimizer.amsgrad is of Adam, but optimizer.name is 'sgd': set it to False"):
        make_optimizer(CONFIG | {"name": "sgd", "amsgrad": True}, steps=(2,))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "lion", "optimizer.name is 'lion': choose one of adam_l2, adamw, sgd"),
        ("schedule", "step", "optimizer.schedule is 'step': choose one of constant, linear, cosine, plateau"),
        ("learning_rate", -0.1, "optimizer.learning_rate is -0.1: give a number that is not negative"),
        ("weight_decay", float("nan"), "optimizer.weight_decay is nan: give a number that is not negative"),
        ("clip_norm", -1.0, "optimizer.clip_norm is -1.0: give a number that is not negative"),
        ("epsilon", 0.0, "optimizer.epsilon is 0.0: give a positive number"),
        ("plateau_patience", 0, "optimizer.plateau_patience is 0: give at least 1"),
        ("plateau_factor", 1.5, "optimizer.plateau_factor is 1.5: give a number between 0 and 1"),
        ("warmup_epochs", 4, "optimizer.warmup_epochs is more than training.epochs: lower it"),
    ],
)
def test_refusals_name_the_field_and_the_remedy(field, value, message):
    with pytest.raises(UserError) as caught:
        make_optimizer(CONFIG | {field: value}, steps=(2, 2, 2))
    assert str(caught.value) == message
