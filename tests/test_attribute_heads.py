"""Attributes that models learn: heads beside any network, their loss on any number of devices, runs, predictions."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pandas as pd
import pytest
from flax import linen as nn
from test_attributes import SCALES, tiny_with_attributes
from tiny import EMOTIONS, LINEAR, WIDTHS, Linear, Output, linear_config, mean_square, tiny_corpus

import jmer
from jmer.config import base_config, with_variants
from jmer.data import make_conversation, make_corpus
from jmer.data.batching import batches
from jmer.errors import UserError
from jmer.evaluation.attribute_scores import attribute_scores
from jmer.losses import concordance_loss, listwise_preference
from jmer.models import Model, build_model, check_model, model_names
from jmer.models.attributes import AttributeHeads
from jmer.pipeline import Pipeline
from jmer.runs import group_runs, train_runs
from jmer.runs.directory import read_json, write_json
from jmer.training import create_train_state, make_optimizer, make_parallel, train_step

HEADS = AttributeHeads(tuple(SCALES), tuple(SCALES.values()), preference_weight=0.5, margin=0.4)
PLAIN = Model(LINEAR, Linear(), mean_square)
MODEL = dataclasses.replace(PLAIN, attributes=HEADS)


@functools.cache
def corpus():
    return tiny_with_attributes()


def batch_of(rows=8, attributes=SCALES):
    conversations = corpus().conversations("train")[:rows]
    (batch,) = batches(conversations, WIDTHS, batch_size=rows, attributes=attributes)
    return batch


@functools.cache
def variables():
    return MODEL.init(jax.random.key(0), batch_of())


def line(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return str(caught.value)


# Heads


def test_heads_lie_beside_a_network_that_stays_what_it_is():
    plain = PLAIN.init(jax.random.key(0), batch_of())
    params = dict(variables()["params"])
    heads = params.pop("attribute_heads")
    assert jax.tree.map(np.shape, heads) == {"kernel": (WIDTHS["text"], 2), "bias": (2,)}
    jax.tree.map(np.testing.assert_array_equal, params, plain["params"])
    output = MODEL.apply(variables(), batch_of(), train=False)
    np.testing.assert_array_equal(output.logits, PLAIN.apply(plain, batch_of(), train=False).logits)
    text = np.float64(batch_of().features["text"])
    np.testing.assert_allclose(output.values, text @ np.asarray(heads["kernel"]) + np.asarray(heads["bias"]), atol=1e-5)


def test_values_are_shown_on_their_scales():
    values = np.float32([[[-1, -1], [0, 0.5], [1, 1]]])
    shown = HEADS.on_scales(values)
    np.testing.assert_allclose(shown["valence"], [[1, 3, 5]])
    np.testing.assert_allclose(shown["arousal"], [[-1, 0.5, 1]])


@pytest.mark.parametrize("name", model_names())
def test_every_model_can_have_heads(name):
    config = with_variants(base_config(name), "tiny")
    config.attributes.names = ("all",)
    config.training.update({"epochs": 1})
    pipeline = Pipeline.for_training(config, corpus())
    model = build_model(pipeline.config)
    check_model(model, tuple(pipeline.widths.items()), False)
    values = jax.eval_shape(
        lambda key: model.apply(model.init(key, batch_of()), batch_of(), train=False).values, jax.random.key(0)
    )
    assert values.shape == (*batch_of().mask.shape, 2)


class Shifted(Linear):
    """A network whose logits no layer gives as they are."""

    @nn.compact
    def __call__(self, batch, *, train=False):
        return Output(nn.Dense(self.num_classes)(batch.features["text"]) + 1)


class Sorted(Linear):
    """A network whose last layer reads another shape."""

    @nn.compact
    def __call__(self, batch, *, train=False):
        x = batch.features["text"][:, :, None, :]
        return Output(Pooled(self.num_classes)(x))


class Pooled(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.features)(x)[:, :, 0]


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (Shifted, "linear has no layer that gives its logits as they are, which heads for attributes need: leave"),
        (Sorted, "model 'linear': what the layer that gives the logits reads must have the shape [B, T, D], but heads"),
    ],
)
def test_a_network_that_heads_do_not_fit_gets_a_line(module, expected):
    model = Model(dataclasses.replace(LINEAR, module=module), module(), mean_square, HEADS)
    assert expected in line(check_model, model, tuple(WIDTHS.items()), False)


# Loss


def expected_terms(values, batch, heads=HEADS):
    """The loss of each attribute over the whole batch."""
    found = {}
    for i, (name, (low, high)) in enumerate(SCALES.items()):
        flat = [np.asarray(x).reshape(-1) for x in (values[..., i], batch.attributes[..., i], batch.mask)]
        ids = np.repeat(batch.conversation_ids[:, 0], batch.mask.shape[1])
        options = {
            "form": heads.preference,
            "skip_weights": [1.0] * heads.skips,
            "margin": 2 * heads.margin / (high - low),
            "groups": ids if heads.lists == "conversation" else None,
        }
        found[f"concordance_{name}"] = concordance_loss(*flat[:2], where=flat[2])
        found[f"preference_{name}"] = listwise_preference(*flat[:2], where=flat[2], **options)
    return found


@pytest.mark.parametrize("change", [{}, {"lists": "conversation"}, {"preference": "ranknet", "skips": 1}])
def test_terms_are_the_losses_of_the_whole_batch(change):
    model, batch = dataclasses.replace(MODEL, attributes=dataclasses.replace(HEADS, **change)), batch_of()
    output = model.apply(variables(), batch, train=False)
    terms = model.loss_terms(output, batch)
    expected = expected_terms(output.values, batch, model.attributes)
    assert list(terms) == ["squares", *expected]
    for name, value in expected.items():
        assert (terms[name].weight, terms[name].divisor) == (0.5 if name.startswith("preference") else 1, 1)
        np.testing.assert_allclose(terms[name].total, value, rtol=1e-5)


def test_places_that_are_compared_grow_with_the_epochs():
    growing = dataclasses.replace(MODEL, attributes=dataclasses.replace(HEADS, skip_epochs=2)).scheduled(
        [3, 4, 4, 4, 5]
    )
    assert growing.attributes.skip_steps == (0, 7, 15, 20), "the run ends before its seventh epoch"
    batch = batch_of()
    output = MODEL.apply(variables(), batch, train=False)
    for step, places in [(0, 1), (6, 1), (7, 2), (14, 2), (15, 3), (19, 3), (None, 4)]:
        heads = dataclasses.replace(HEADS, skips=places)
        found = growing.loss_terms(output, batch, step=step)
        for name, value in expected_terms(output.values, batch, heads).items():
            np.testing.assert_allclose(found[name].total, value, rtol=1e-5, err_msg=f"{name} in step {step}")
    at_once = MODEL.scheduled([3, 4])
    assert at_once.attributes.skip_steps == (0, 0, 0, 0)
    assert PLAIN.scheduled([3, 4]) is PLAIN


def test_without_a_weight_there_is_no_preference():
    model = dataclasses.replace(MODEL, attributes=dataclasses.replace(HEADS, preference_weight=0.0))
    terms = model.loss_terms(model.apply(variables(), batch_of(), train=False), batch_of())
    assert list(terms) == ["squares", "concordance_valence", "concordance_arousal"]


def test_a_batch_in_which_nobody_is_labelled_does_not_count():
    batch = batch_of()
    batch = batch.replace(attributes=np.full_like(batch.attributes, np.nan))
    terms = MODEL.loss_terms(MODEL.apply(variables(), batch, train=False), batch)
    assert [float(terms[name].total) for name in terms if name != "squares"] == [0] * 4
    assert [float(terms[name].divisor) for name in terms if name != "squares"] == [0] * 4


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_a_step_is_the_same_on_any_number_of_devices(backend):
    config = base_config("linear") if "linear" in model_names() else linear_config()
    optimizer = make_optimizer({**config.optimizer, "name": "sgd", "amsgrad": False}, steps=[1])
    model = dataclasses.replace(MODEL, attributes=dataclasses.replace(HEADS, lists="conversation"))
    step = functools.partial(train_step, model=model, optimizer=optimizer)
    found = []
    for mapping in (make_parallel("jit"), make_parallel(backend, 8)):
        state = create_train_state(model, optimizer, WIDTHS, 0)
        state, metrics = mapping.step(step)(mapping.replicate(state), batch_of())
        found.append(jax.device_get((metrics.loss, metrics.terms, state.params)))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6), *found)
    assert {name: count for name, (_, count) in found[0][1].items() if name != "squares"} == dict.fromkeys(
        [f"{kind}_{name}" for name in SCALES for kind in ("concordance", "preference")], 1
    )


# Runs


def config_with(**changes):
    config = linear_config(
        **{"attributes__names": ("valence", "arousal"), "attributes__preference_weight": 0.5, **changes}
    )
    config.training.parallel = "jit"
    return config


def test_a_run_learns_scores_and_predicts_attributes(tmp_path):
    config = config_with(selection_metric="ccc_valence")
    assert train_runs([config], corpus(), [tmp_path / "run"], log=lambda text: None)
    run = jmer.load_run(tmp_path / "run")
    assert "concordance_valence" in json.dumps(run.history[0]) and "validation/ccc_arousal" in run.history[0]
    table = run.predict(corpus(), "validation")
    for name in SCALES:
        expected = np.concatenate([c.attributes[name] for c in corpus().conversations("validation")])
        np.testing.assert_allclose(table[f"gold_{name}"], expected, rtol=1e-6)
        scores = attribute_scores(expected, table[f"predicted_{name}"], margin=0.0)
        saved = run.scores["validation"].attributes[name]
        assert dataclasses.asdict(saved) == pytest.approx(dataclasses.asdict(scores), rel=1e-4)
        best = max(row[f"validation/ccc_{name}"] for row in run.history)
        assert name != "valence" or saved.concordance == pytest.approx(best, rel=1e-4)
    read = pd.read_csv(tmp_path / "run" / "predictions" / "validation.csv")
    np.testing.assert_allclose(read["predicted_valence"], table["predicted_valence"], rtol=1e-4)
    report = (tmp_path / "run" / "report.md").read_text()
    assert "| attribute | " in report and "CCC of valence" in report
    assert run.evaluate(corpus())["test"].attributes.keys() == SCALES.keys()
    fields = read_json(tmp_path / "run" / "config.json")
    fields["attributes"]["scales"][0] = 0.0
    write_json(tmp_path / "run" / "config.json", fields)
    assert "attributes.scales is 0.0, 5.0, -1.0, 1.0: expected those of" in line(jmer.load_run, tmp_path / "run")


def test_runs_side_by_side_and_step_by_step_are_those_alone(tmp_path):
    configs = [config_with(seed=seed) for seed in (0, 1)]
    folders = [tmp_path / "0", tmp_path / "1"]
    train_runs(configs, corpus(), folders, log=lambda text: None)
    train_runs([config_with(training__resident_megabytes=0)], corpus(), [tmp_path / "alone"], log=lambda text: None)
    together, alone = (jmer.load_run(folder) for folder in (folders[0], tmp_path / "alone"))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), together.variables, alone.variables)
    for one, other in zip(together.history, alone.history, strict=True):
        assert one["train/loss_preference_valence"] == pytest.approx(other["train/loss_preference_valence"], rel=1e-4)
    group = group_runs([jmer.load_run(folder) for folder in folders])
    both = group.ensemble.predict(corpus(), "test")
    single = [jmer.load_run(folder).predict(corpus(), "test") for folder in folders]
    mean = np.mean([table["predicted_arousal"] for table in single], axis=0)
    np.testing.assert_allclose(both["predicted_arousal"], mean, atol=1e-5)
    row = group.summary().loc["test", "ccc_arousal"]
    scores = [jmer.load_run(folder).scores["test"].attributes["arousal"].concordance for folder in folders]
    assert row["mean"] == pytest.approx(np.mean(scores))
    expected = attribute_scores(both["gold_arousal"], mean).concordance
    assert row["ensemble"] == pytest.approx(expected, rel=1e-4)
    assert "CCC of arousal" in group.report()


@pytest.mark.parametrize("resident", [1024, 0])
def test_a_run_begins_with_neighbours(tmp_path, resident):
    def losses(name, **changes):
        options = {"training__epochs": 2, "training__resident_megabytes": resident, "optimizer__learning_rate": 0.0}
        train_runs([config_with(**options, **changes)], corpus(), [tmp_path / name], log=lambda text: None)
        return [row["train/loss_preference_valence"] for row in jmer.load_run(tmp_path / name).history]

    growing = losses("growing", attributes__skip_epochs=1)
    one, two, all_places = (
        losses(f"{skips}", attributes__skips=skips, attributes__skip_epochs=0) for skips in (1, 2, 4)
    )
    assert growing[0] == one[0] and growing[1] == pytest.approx(two[1], rel=1e-6)
    assert len({growing[1], one[1], all_places[1]}) == 3


def test_conversations_and_corpora_without_attributes_are_predicted_too(tmp_path):
    train_runs([config_with()], corpus(), [tmp_path / "run"], log=lambda text: None)
    run = jmer.load_run(tmp_path / "run")
    plain = tiny_corpus()
    table = run.predict(plain, "test")
    assert table["gold_valence"].isna().all() and np.isfinite(table["predicted_valence"]).all()
    assert run.evaluate(plain)["test"].attributes == {}
    one = make_conversation(
        {m: np.ones((2, width)) for m, width in WIDTHS.items()}, attributes={"valence": [1, None], "unknown": [1, 2]}
    )
    np.testing.assert_array_equal(run.predict(one)["gold_valence"], [1, np.nan])
    other = dataclasses.replace(corpus().card, attributes=SCALES | {"valence": (0, 6)})
    rescaled = make_corpus({"test": corpus().conversations("test")}, other)
    assert "has valence from 0 to 6, the model was trained on 1 to 5: convert" in line(run.predict, rescaled)


def test_a_run_without_attributes_does_not_know_them(tmp_path):
    for name, given in (("with", corpus()), ("without", tiny_corpus())):
        train_runs([config_with(attributes__names=())], given, [tmp_path / name], log=lambda text: None)
    one, other = (jmer.load_run(tmp_path / name) for name in ("with", "without"))
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)
    assert not [column for column in one.predict(corpus()) if "valence" in column]
    assert one.scores["test"].attributes == {}
    # The corpus is the same to a run that does not learn them.
    assert not train_runs(
        [config_with(attributes__names=())], tiny_corpus(), [tmp_path / "with"], log=lambda text: None
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"attributes__names": ("dominance",)},
            "attributes.names has dominance, but corpus 'synthetic-iemocap4' has only",
        ),
        ({"attributes__names": ("valence", "valence")}, "attributes.names is valence, valence: name each once"),
        (
            {"attributes__preference": "pairs"},
            "unknown attributes.preference 'pairs'; choose one of exact, lse, listmle",
        ),
        ({"attributes__lists": "corpus"}, "unknown attributes.lists 'corpus'; choose one of batch, conversation"),
        ({"attributes__skips": 0}, "attributes.skips is 0: give at least 1"),
        ({"attributes__skip_epochs": -1}, "attributes.skip_epochs is -1: give at least 0"),
        ({"attributes__margin": -1.0}, "attributes.margin is -1.0: give at least 0"),
        ({"selection_metric": "ccc_dominance"}, "choose one of accuracy, weighted_f1, macro_f1, unweighted_accuracy"),
    ],
)
def test_what_cannot_be_learned_gets_a_line(tmp_path, changes, expected):
    assert expected in line(train_runs, [config_with(**changes)], corpus(), [tmp_path / "run"], log=lambda text: None)
    assert not (tmp_path / "run").exists()


def test_an_attribute_without_training_values_gets_a_line(tmp_path):
    empty = {"train": [dataclasses.replace(c, attributes={}) for c in corpus().conversations("train")]}
    rest = {split: corpus().conversations(split) for split in ("validation", "test")}
    unlabelled = make_corpus(empty | rest, corpus().card)
    expected = "attributes.names has valence, but no training utterance has a value of it: leave it out"
    assert line(train_runs, [config_with()], unlabelled, [tmp_path / "run"], log=lambda text: None) == expected


def test_a_linear_attribute_is_learned(tmp_path):
    rng = np.random.default_rng(0)
    direction = rng.normal(size=WIDTHS["text"]) / np.sqrt(WIDTHS["text"])

    def conversation(i):
        text = rng.normal(size=(9, WIDTHS["text"]))
        labels = rng.integers(0, len(EMOTIONS), 9)
        return make_conversation({"text": text}, labels=labels, attributes={"valence": 3 + text @ direction}, id=str(i))

    splits = {"train": [conversation(i) for i in range(20)], "validation": [conversation(i) for i in range(20, 28)]}
    made = make_corpus(splits, emotions=EMOTIONS, attributes={"valence": (1, 5)})
    config = config_with(attributes__names=("all",), training__epochs=40, optimizer__learning_rate=0.05)
    train_runs([config], made, [tmp_path / "run"], log=lambda text: None)
    scores = jmer.load_run(tmp_path / "run").scores["validation"].attributes["valence"]
    assert scores.concordance > 0.9 and scores.kendall_tau > 0.8 and scores.pairwise_accuracy > 0.9


def test_folds_are_summarized_with_their_attributes(tmp_path):
    config = config_with(data__folds="2", data__holdout=0.3, training__epochs=1, attributes__names=("valence",))
    made = jmer.train(config, corpus(), tmp_path / "folds", log=None)
    row = made.summary().loc["ccc_valence"]
    tables = made.pooled_predictions[0]
    expected = attribute_scores(tables["gold_valence"], tables["predicted_valence"]).concordance
    assert row["pooled"] == pytest.approx(expected, rel=1e-4)
    assert "CCC of valence" in made.report()


def test_a_run_that_is_continued_is_that_without_a_stop(tmp_path):
    for epochs in (1, 2):
        train_runs([config_with(training__epochs=epochs)], corpus(), [tmp_path / "twice"], log=lambda text: None)
    train_runs([config_with()], corpus(), [tmp_path / "once"], log=lambda text: None)
    one, other = (jmer.load_run(tmp_path / name) for name in ("twice", "once"))
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)


def test_gradients_are_modulated_beside_heads(tmp_path):
    config = with_variants(base_config("concat_mlp"), "tiny")
    config.training.update({"epochs": 1, "batch_size": 4, "parallel": "jit"})
    config.attributes.names = ("valence",)
    config.modulation.method = "classifier_guided"
    train_runs([config], corpus(), [tmp_path / "run"], log=lambda text: None)
    run = jmer.load_run(tmp_path / "run")
    assert {"train/loss_concordance_valence", "train/loss_classifier_text"} <= run.history[0].keys()
    assert np.isfinite(run.predict(corpus(), "test")["predicted_valence"]).all()
