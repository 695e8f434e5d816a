"""Analyses compute the statistics that they describe, and name the reason where they cannot."""

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from sklearn.metrics import accuracy_score, f1_score
from tiny import EMOTIONS, tiny_config, tiny_corpus

import jmer
from experiments.analysis import calibration as reliability
from experiments.analysis import fusion_weights, missing, noise, posteriors, space, speed
from experiments.analysis.__main__ import main
from experiments.analysis.catalogue import ANALYSES
from experiments.analysis.subjects import load_runs
from jmer.command import exit_status
from jmer.data import make_corpus
from jmer.data.corpus import Conversation, save_corpus
from jmer.data.normalization import Standardization
from jmer.evaluation import report
from jmer.evaluation.forward import compiled_output

SPLIT = "validation"
MODALITIES = ("text", "audio", "visual")
VARYING = {m: Standardization.unchanged(3) for m in MODALITIES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus and two seeds of LFVD trained on it, as `corpus` and `runs`."""
    folder = tmp_path_factory.mktemp("analysis")
    save_corpus(tiny_corpus(), folder / "corpus")
    # Without the contrastive terms, which take most of the time to compile.
    config = tiny_config(seeds=2, training__parallel="jit", loss__gamma_self=0.0, loss__gamma_full=0.0)
    with pytest.MonkeyPatch.context() as patch:
        for plot in ("plot_confusion", "plot_learning_curves"):
            patch.setattr(report, plot, lambda *_, **__: None)
        jmer.train(config, folder / "corpus", folder / "runs", log=None)
    return folder


@pytest.fixture(scope="module")
def subjects(folder):
    return load_runs([folder / "runs"])


@pytest.fixture(scope="module")
def frames(subjects):
    """The table of each analysis."""
    return {name: analysis.measure(subjects, SPLIT) for name, analysis in ANALYSES.items()}


@pytest.fixture(scope="module")
def predictions(subjects):
    """The predictions for the split in each run's folder, by seed."""
    paths = {subject.seed: subject.run.folder / "predictions" / f"{SPLIT}.csv" for subject in subjects}
    tables = {seed: pd.read_csv(path, keep_default_na=False) for seed, path in paths.items()}
    for table in tables.values():
        for m in MODALITIES:
            table[f"weight_{m}"] = pd.to_numeric(table[f"weight_{m}"])
    return tables


def labelled(table):
    return table[table["gold"] != ""]


def scores_of(table):
    table = labelled(table)
    return (
        f1_score(table["gold"], table["predicted"], average="weighted", zero_division=0),
        accuracy_score(table["gold"], table["predicted"]),
    )


def predicted_from(subject, change):
    """Predicts the split of a corpus whose conversations are changed before they are normalised."""
    changed = make_corpus({SPLIT: list(map(change, subject.corpus.conversations(SPLIT)))}, subject.corpus.card)
    return subject.run.predict(changed, SPLIT)


# Runs.


def test_outputs_are_what_the_run_wrote(subjects, predictions):
    assert [subject.seed for subject in subjects] == [0, 1]
    assert compiled_output(subjects[0].predictor.model) is compiled_output(subjects[1].predictor.model)
    assert subjects[0].modalities == MODALITIES
    for subject in subjects:
        conversations, table = subject.examples(SPLIT), predictions[subject.seed]
        written = table[[f"probability_{name}" for name in EMOTIONS]].to_numpy()
        np.testing.assert_allclose(subject.probabilities(conversations), written, rtol=1e-4, atol=1e-6)
        weights = subject.predictor.predict_normalized(conversations).weights
        assert list(map(len, weights["audio"])) == list(map(len, conversations))
        found = np.concatenate(weights["audio"])
        np.testing.assert_allclose(found, table["weight_audio"].fillna(0), rtol=1e-4, atol=1e-6)


def test_what_is_not_spoilt_has_the_scores_of_the_run(subjects, frames):
    for name, level in (("missing", "share"), ("noise", "deviation")):
        for subject in subjects:
            saved = json.loads((subject.run.folder / "scores.json").read_text())["splits"][SPLIT]
            frame = frames[name]
            rows = frame[(frame["seed"] == subject.seed) & (frame[level] == 0)]
            assert len(rows) == {"missing": 6, "noise": 3}[name]
            assert set(rows["weighted_f1"]) == {saved["weighted_f1"]} and set(rows["accuracy"]) == {saved["accuracy"]}


# Missing modalities.


def lacking(before, after, modality):
    """Which utterances have lost a modality; everything else must be as it was."""
    for m, x in before.features.items():
        kept = after.available[m] if m == modality else np.ones(len(before), bool)
        np.testing.assert_array_equal(after.features[m][kept], x[kept])
        assert not after.features[m][~kept].any()
        if m != modality:
            np.testing.assert_array_equal(after.available[m], before.available[m])
    return before.available[modality] & ~after.available[modality]


def made_up(name, count, frames=False):
    rng = np.random.default_rng(len(name))
    features = {m: rng.normal(size=(count, 3)).astype(np.float32) for m in MODALITIES}
    if frames:
        features = {m: [rng.normal(size=(n + 1, 3)).astype(np.float32) for n in range(count)] for m in MODALITIES}
    available = {m: np.ones(count, bool) for m in MODALITIES}
    names = [str(i) for i in range(count)]
    return Conversation(name, names, names, np.zeros(count, np.int32), features, available, names)


def test_shares_are_nested_and_as_large_as_they_say():
    long = made_up("long", 4000)
    lost = [lacking(long, missing.without(long, ["text"], share, 3), "text") for share in missing.SHARES]
    for share, gone in zip(missing.SHARES, lost, strict=True):
        assert abs(gone.mean() - share) < 4 * np.sqrt(share * (1 - share) / 4000) + 1e-12
    assert all((less <= more).all() for less, more in itertools.pairwise(lost))
    assert not lost[0].any() and lost[-1].all()


def test_the_draw_depends_on_seed_and_conversation_alone():
    one, other = made_up("one", 50), made_up("other", 50)

    def lost(conversation, seed, modality="text", taken=("text",)):
        return missing.without(conversation, taken, 0.5, seed).available[modality].tolist()

    assert lost(one, 0) == lost(one, 0, "audio", ("audio", "visual")) == lost(one, 0, "visual", ("audio", "visual"))
    assert lost(one, 0) != lost(one, 1) and lost(one, 0) != lost(other, 0)


def test_frames_go_missing_and_become_noisy_too():
    before = made_up("frames", 6, frames=True)
    without, noisy = (
        missing.without(before, ["audio"], 0.5, 1),
        noise.noisy(before, ["audio"], 0.5, 1, statistics=VARYING),
    )
    gone = ~without.available["audio"]
    assert 0 < gone.sum() < 6
    for i in range(6):
        assert without.features["audio"][i].shape == before.features["audio"][i].shape
        assert without.features["audio"][i].any() == (not gone[i])
        assert (noisy.features["audio"][i] != before.features["audio"][i]).all()
    assert noisy.features["text"] is before.features["text"] and without.features["text"] is before.features["text"]


@pytest.mark.parametrize("taken", [("text",), ("audio", "visual")])
def test_missing_scores_are_those_of_a_corpus_without(subjects, frames, taken):
    def take(conversation):
        none = np.zeros(len(conversation), bool)
        features = {m: 0 * x if m in taken else x for m, x in conversation.features.items()}
        available = {m: none if m in taken else x for m, x in conversation.available.items()}
        return dataclasses.replace(conversation, features=features, available=available)

    subject, frame = subjects[1], frames["missing"]
    row = frame[(frame["seed"] == 1) & (frame["modalities"] == "+".join(taken)) & (frame["share"] == 1)].iloc[0]
    expected = scores_of(predicted_from(subject, take))
    assert (row["weighted_f1"], row["accuracy"]) == pytest.approx(expected, abs=1e-12)


def test_the_model_answers_where_nothing_is_left(subjects):
    nothing = [missing.without(c, MODALITIES, 1, 0) for c in subjects[0].examples(SPLIT)]
    assert not any(x.any() for c in nothing for x in (*c.features.values(), *c.available.values()))
    probabilities = subjects[0].probabilities(nothing)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-12)


def test_conditions_never_take_all_from_every_utterance():
    assert missing.conditions(["text"]) == [(("text",), share) for share in (0, 0.1, 0.25, 0.5, 0.75)]
    assert [c for c in missing.conditions(["text", "audio"]) if c[1] == 1] == [(("text",), 1), (("audio",), 1)]
    three = dict.fromkeys(group for group, _ in missing.conditions(MODALITIES))
    assert list(map("+".join, three)) == ["text", "audio", "visual", "text+audio", "text+visual", "audio+visual"]
    frame = pd.DataFrame({"seed": 0, "modalities": "text", "share": [0, 0.75], "weighted_f1": [0.5, 0.4]})
    assert "100 % is left out" in missing.describe(frame)[-1]


# Noisy modalities.


def test_noise_is_gaussian_of_its_deviation_and_only_grows():
    long = made_up("long", 4000)
    long.available["text"][::2] = False

    def step(deviation, statistics=VARYING):
        return noise.noisy(long, ["text"], deviation, 5, statistics=statistics).features["text"] - long.features["text"]

    steps = {deviation: step(deviation) for deviation in (0.0, 1.0, 2.0)}
    constant = dataclasses.replace(VARYING["text"], scale=np.array([1, np.inf, 1], np.float32))
    np.testing.assert_array_equal(step(1.0, {"text": constant}), steps[1.0] * np.array([1, 0, 1], np.float32))
    assert not steps[0.0].any() and not steps[1.0][::2].any()
    np.testing.assert_allclose(steps[2.0], 2 * steps[1.0], atol=1e-5)
    drawn = steps[1.0][1::2]
    assert abs(drawn.mean()) < 0.05 and abs(drawn.std() - 1) < 0.05
    assert abs((np.abs(drawn) < 1).mean() - 0.6827) < 0.03
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.1


def test_noisy_scores_are_those_of_a_corpus_with_noise(subjects, frames):
    subject, frame = subjects[0], frames["noise"]
    normalised = {c.id: c for c in subject.examples(SPLIT)}

    def add(conversation):
        clean = normalised[conversation.id]
        statistics = subject.run.normalization
        noisy = noise.noisy(clean, ["visual"], 2.0, subject.seed, statistics=statistics)
        moved = noisy.features["visual"] - clean.features["visual"]
        visual = conversation.features["visual"] + moved * statistics["visual"].scale
        return dataclasses.replace(conversation, features=conversation.features | {"visual": visual})

    row = frame[(frame["seed"] == 0) & (frame["modalities"] == "visual") & (frame["deviation"] == 2)].iloc[0]
    expected = scores_of(predicted_from(subject, add))
    assert (row["weighted_f1"], row["accuracy"]) == pytest.approx(expected, abs=1e-12)


def test_tables_of_curves_give_mean_deviation_and_paired_change():
    columns = ("seed", "modalities", "share", "weighted_f1")
    rows = [(0, "text", 0, 0.6), (0, "text", 1, 0.3), (1, "text", 0, 0.5), (1, "text", 1, 0.3)]
    rows += [(0, "audio", 0, 0.6), (0, "audio", 1, 0.6), (1, "audio", 0, 0.5), (1, "audio", 1, 0.6)]
    table, sentence = missing.describe(pd.DataFrame(rows, columns=columns))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert cells[0] == ["modalities", "0 %", "100 %", "last − first"]
    assert cells[2] == ["text", "55.00 ± 7.07", "30.00 ± 0.00", "-25.00 ± 7.07"]
    assert cells[3] == ["audio", "55.00 ± 7.07", "60.00 ± 0.00", "5.00 ± 7.07"]
    assert "missing text (100 %) has the largest effect: -25.00 ± 7.07 points" in sentence
    (*_, better) = missing.describe(pd.DataFrame(rows[4:], columns=columns))
    assert "missing any (100 %) does not lower the mean" in better


# Calibration.


def expected_error(tables):
    """The expected calibration error written out as a loop over utterances and bins."""
    bins = {}
    for table in tables:
        for _, row in labelled(table).iterrows():
            odds = {name: row[f"probability_{name}"] for name in EMOTIONS}
            bins.setdefault(int(np.ceil(max(odds.values()) * 15)), []).append(
                (max(odds.values()), max(odds, key=odds.get) == row["gold"])
            )
    total = sum(map(len, bins.values()))
    return sum(abs(sum(right for _, right in b) - sum(p for p, _ in b)) for b in bins.values()) / total


def test_calibration_of_each_seed_and_of_all_together(frames, predictions):
    frame = frames["calibration"]
    for seed, table in predictions.items():
        rows = frame[frame["seed"] == seed]
        assert len(rows) == 15 and rows["count"].sum() == len(labelled(table))
        assert reliability.merged(rows).expected_error == pytest.approx(expected_error([table]), abs=1e-5)
    together = reliability.merged(frame)
    assert together.expected_error == pytest.approx(expected_error(predictions.values()), abs=1e-5)
    assert np.isnan(together.confidence[together.count == 0]).all() and np.isfinite(together.maximum_error)
    errors = [expected_error([table]) for table in predictions.values()]
    text = reliability.describe(frame)[0]
    assert f"error {100 * np.mean(errors):.2f} ± {100 * np.std(errors, ddof=1):.2f} %" in text


# Fusion weights.


def test_weights_are_those_that_the_run_wrote(frames, predictions):
    frame = frames["fusion_weights"]
    assert set(frame["modality"]) == {"audio", "visual"}
    assert (frame["lowest"] == 0.5).all() and (frame["highest"] == 1).all()
    for (seed, m), rows in frame.groupby(["seed", "modality"]):
        table = labelled(predictions[seed])
        table = table[table[[f"weight_{m}" for m in MODALITIES]].notna().all(axis=1)]
        np.testing.assert_allclose(rows["weight"], table[f"weight_{m}"], rtol=1e-4)
        assert rows["correct"].tolist() == (table["gold"] == table["predicted"]).tolist()
        assert rows[["conversation", "utterance"]].to_numpy().tolist() == (
            table[["conversation", "utterance"]].astype(str).to_numpy().tolist()
        )


def test_relation_of_weights_to_being_right():
    rng = np.random.default_rng(0)
    weight = np.concatenate([rng.uniform(0.5, 1, 200), [0.51] * 20, [0.995] * 40])
    right = rng.random(260) < weight
    frame = pd.DataFrame({"weight": weight, "correct": right, "lowest": 0.5, "highest": 1.0})
    got = fusion_weights.summary(frame)
    assert got["mean"] == pytest.approx(sum(weight) / 260)
    assert got["sd"] == pytest.approx(np.sqrt(((weight - weight.mean()) ** 2).sum() / 259))
    assert got["at_lowest"] == sum(w < 0.52 for w in weight) / 260
    assert got["at_highest"] == sum(w > 0.98 for w in weight) / 260
    assert got["correct"] == pytest.approx(np.mean([w for w, r in zip(weight, right, strict=True) if r]))
    assert got["wrong"] == pytest.approx(np.mean([w for w, r in zip(weight, right, strict=True) if not r]))

    def ranks(values):
        return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])

    assert got["correlation"] == pytest.approx(np.corrcoef(ranks(weight), ranks(right))[0, 1])
    assert got["correlation"] > 0.1
    borders = [-np.inf, *np.quantile(weight, (0.25, 0.5, 0.75)), np.inf]
    for i in range(4):
        inside = [r for w, r in zip(weight, right, strict=True) if borders[i] < w <= borders[i + 1]]
        assert got[f"quarter_{i + 1}"] == pytest.approx(np.mean(inside))


def test_constant_weights_have_no_relation_to_anything():
    frame = pd.DataFrame({"weight": 1.0, "correct": [True, False, True], "lowest": 0.5, "highest": 1.0})
    got = fusion_weights.summary(frame)
    assert got["at_highest"] == 1 and got["sd"] == 0
    assert all(np.isnan(got[name]) for name in ("correlation", "quarter_1", "quarter_4"))
    text = fusion_weights.describe(frame.assign(seed=0, modality="audio"))
    assert "| –" in text[-1] and "1.000" in text[1] and "100.00" in text[1]


# Variational heads.


def test_monitors_follow_their_formulas(subjects, frames):
    subject = subjects[0]
    conversations = subject.examples(SPLIT)
    outputs = subject.outputs(conversations, lambda output: (output.posteriors, output.weights))

    def gaussian(modality, where):
        found = [q[modality] for q, _ in outputs]
        return (np.concatenate([getattr(q, x) for q in found])[where].astype(np.float64) for x in ("mean", "scale"))

    available = {m: np.concatenate([c.available[m] for c in conversations]) for m in MODALITIES}
    rows = frames["posteriors"].set_index(["seed", "modality"])
    for m in MODALITIES:
        mean, scale = gaussian(m, available[m])
        row = rows.loc[(0, m)]
        assert row["kl"] == pytest.approx(np.mean(0.5 * (mean**2 + scale**2 - 1 - 2 * np.log(scale))), rel=1e-4)
        assert row["active_units"] == sum(np.mean((u - np.mean(u)) ** 2) > 0.01 for u in mean.T)
        assert (row["scale_mean"], row["scale_sd"]) == pytest.approx((scale.mean(), scale.std()), rel=1e-5)
    assert rows.loc[(0, "text"), ["symmetric_kl", "weight_mean", "saturated"]].isna().all()
    both = available["text"] & available["audio"]
    (m1, s1), (m2, s2) = gaussian("text", both), gaussian("audio", both)

    def divergence(m1, s1, m2, s2):
        return (np.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5).sum(-1)

    symmetric = (divergence(m1, s1, m2, s2) + divergence(m2, s2, m1, s1)) / 2
    weights = 1 / (1 + np.exp(-symmetric))
    row = rows.loc[(0, "audio")]
    assert row["symmetric_kl"] == pytest.approx(symmetric.mean(), rel=1e-3, abs=1e-5)
    assert (row["weight_mean"], row["weight_sd"]) == pytest.approx((weights.mean(), weights.std()), rel=1e-3, abs=1e-5)
    assert row["saturated"] == np.mean(weights > 0.98)


@pytest.mark.parametrize(("factor", "verdict"), [(0.0, "collapsed"), (1e4, "saturated")])
def test_verdicts_on_heads_that_say_nothing_and_on_weights_that_are_all_alike(subjects, factor, verdict):
    predictor = subjects[0].predictor
    params = dict(predictor.variables["params"])
    params["posterior"] = jax.tree.map(lambda x: factor * x, params["posterior"])
    variables = {**predictor.variables, "params": params}
    changed = dataclasses.replace(subjects[0], predictor=dataclasses.replace(predictor, variables=variables))
    frame = posteriors.measure([changed], SPLIT)
    assert set(frame.loc[frame["modality"] != "text", "verdict"]) == {verdict}
    assert frame["active_units"].eq(0).all() == (verdict == "collapsed")
    assert f"{verdict} (1 of 1)" in posteriors.describe(frame)[0]


def test_a_range_follows_the_weighting(subjects):
    def limits(weighting):
        predictor = subjects[0].predictor
        model = dataclasses.replace(predictor.model, module=predictor.model.module.clone(weight_fn=weighting))
        changed = dataclasses.replace(predictor, model=model)
        return fusion_weights.limits(dataclasses.replace(subjects[0], predictor=changed))

    assert [limits(w) for w in ("sigmoid", "two_sigmoid_minus_one", "one_minus")] == [(0.5, 1), (0, 1), (0.5, 0)]


# The space.


def test_neighbours_and_silhouettes(subjects, frames):
    subject, frame = subjects[1], frames["space"]
    conversations = subject.examples(SPLIT)
    gold = np.concatenate([c.labels for c in conversations])
    points = np.concatenate(subject.outputs(conversations, lambda output: output.fused)).astype(np.float64)[gold >= 0]
    gold = gold[gold >= 0]
    distance = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    alike, silhouette = [], []
    for i in range(len(gold)):
        others = [j for j in np.argsort(distance[i], kind="stable") if j != i][:10]
        alike.append(np.mean(gold[others] == gold[i]))
        own = [distance[i, j] for j in range(len(gold)) if gold[j] == gold[i] and j != i]
        nearest = min(distance[i][gold == other].mean() for other in set(gold) - {gold[i]})
        silhouette.append((nearest - np.mean(own)) / max(nearest, np.mean(own)) if own else 0)
    rows = frame[frame["seed"] == 1]
    assert rows["alike"].mean() == pytest.approx(np.mean(alike), abs=1e-9)
    assert rows["silhouette"].mean() == pytest.approx(np.mean(silhouette), abs=1e-9)
    assert sorted(rows["emotion"]) == sorted(EMOTIONS[i] for i in gold)
    assert rows["x"].isna().all() and np.isfinite(frame.loc[frame["seed"] == 0, ["x", "y"]].to_numpy()).all()


def test_of_many_utterances_some_are_drawn(subjects, monkeypatch):
    monkeypatch.setattr(space, "UTTERANCES", 7)
    frame, again = space.measure(subjects[:1], SPLIT), space.measure(subjects[:1], SPLIT)
    assert len(frame) == 7 and frame["x"].notna().all()
    pd.testing.assert_frame_equal(frame, again)


# Speed.


def test_speed_is_utterances_over_the_median_time(subjects, monkeypatch):
    monkeypatch.setattr(speed, "alternate", lambda calls, repeats: {name: [9.0, 2.0, 4.0, 1.0, 5.0] for name in calls})
    frame = speed.measure(subjects, SPLIT)
    count = sum(map(len, subjects[0].examples(SPLIT)))
    assert frame["inference"].tolist() == [count / 4] * 2
    for subject, (_, row) in zip(subjects, frame.iterrows(), strict=True):
        log = [json.loads(line) for line in (subject.run.folder / "metrics.jsonl").read_text().splitlines()]
        assert row["training"] == np.median([epoch["utterances_per_second"] for epoch in log])
        assert row["parameters"] == sum(x.size for x in jax.tree.leaves(subject.run.variables["params"]))
    assert f"{count / 4:,.0f} ± 0 in inference" in speed.describe(frame)[0]


# Pictures and reports.


@pytest.mark.parametrize("name", ANALYSES)
def test_pictures_are_not_blank(name, frames, tmp_path):
    for count in (1, 2):
        frame = frames[name][frames[name]["seed"] < count]
        ANALYSES[name].draw(frame, tmp_path / "picture.png", "title")
        assert imread(tmp_path / "picture.png").std() > 0.01
        assert all(ANALYSES[name].describe(frame))


@pytest.mark.slow
def test_the_report_links_to_what_is_there(folder, tmp_path, capfd):
    out = tmp_path / "out"
    assert exit_status(main, [str(folder / "runs"), "--out", str(out)]) == 0
    text = (out / "analysis.md").read_text()
    assert text in capfd.readouterr().out
    for name, analysis in ANALYSES.items():
        assert f"## {analysis.title}\n" in text and f"({name}.csv)" in text and f"({name}.png)" in text
        assert len(pd.read_csv(out / f"{name}.csv")) and imread(out / f"{name}.png").std() > 0.01
        assert (out / f"{name}.svg").read_text().endswith("</svg>\n")
    assert len(list(out.iterdir())) == 3 * len(ANALYSES) + 1


def test_a_report_says_what_it_is_about(folder, tmp_path, capfd):
    command = [
        str(folder / "runs" / "seed1"),
        str(folder / "runs" / "seed0"),
        "--only",
        "calibration",
        "--split",
        "test",
    ]
    assert exit_status(main, [*command, "--out", str(tmp_path)]) == 0
    text = (tmp_path / "analysis.md").read_text()
    assert text.startswith("# Analyses of LFVD on synthetic-iemocap4\n\n> **SYNTHETIC CORPUS.**")
    assert "Split: TEST, n = 2 (seeds 1, 0). Epoch " in text and "chosen by validation weighted F1." in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "analysis.md",
        "calibration.csv",
        "calibration.png",
        "calibration.svg",
    ]


TESTS = Path(__file__).parent
LINEAR = str(TESTS / "linear_experiment.py")


@pytest.fixture(scope="module")
def linear(folder):
    """The folder of a model whose output has logits only."""
    jmer.train(jmer.get_config(LINEAR, {"training.epochs": 2}), folder / "corpus", folder / "linear", log=None)
    return folder / "linear"


def test_a_model_may_lack_what_an_analysis_needs(linear, tmp_path):
    names = "fusion_weights,posteriors"
    assert exit_status(main, [str(linear), "--only", names, "--out", str(tmp_path)]) == 0
    text = (tmp_path / "analysis.md").read_text()
    assert "Left out: this model has no fusion weights." in text
    assert "Left out: this model has no variational heads." in text
    (subject,) = load_runs([linear])
    frame = space.measure([subject], SPLIT)
    gold = np.concatenate([c.labels for c in subject.examples(SPLIT)])
    assert len(frame) == (gold >= 0).sum() and frame["x"].notna().all()
    assert "the space of the logits" in space.describe(frame)[0]


@pytest.mark.slow
def test_a_process_that_does_not_know_the_model_gets_its_file(linear, tmp_path):
    def analysed(*flags):
        command = [sys.executable, "-m", "experiments.analysis", linear, "--only", "calibration", "--out", tmp_path]
        path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
        done = subprocess.run(
            [*map(str, command), *flags], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
        )
        return done.returncode, done.stderr

    status, errors = analysed()
    assert status == 2 and "model 'linear', which is not registered" in errors and len(errors.splitlines()) == 1
    assert analysed("--config", LINEAR) == (0, "")


def test_mistakes_are_one_line(folder, linear, tmp_path, capfd):
    one, other, text = folder / "runs" / "seed0", folder / "runs" / "seed1", ("--only", "calibration")

    def refused(*arguments):
        capfd.readouterr()
        assert exit_status(main, list(map(str, (*arguments, "--out", tmp_path / "out")))) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert not (tmp_path / "out").exists()
        return line

    assert "nowhere is not the folder of a run: it has no config.json" in refused(folder / "nowhere")
    assert "is not the folder of a run" in refused(folder / "corpus")
    assert "name runs that differ only in their seed" in refused(one, linear)
    assert "the seeds 0, 1, 0 are not all different" in refused(folder / "runs", one)
    assert "unknown name 'magic' in --only: choose from missing, noise" in refused(one, "--only", "magic")
    assert "has no split 'holdout', only train" in refused(one, "--split", "holdout", *text)
    assert "no corpus 'elsewhere'" in refused(one, "--corpus", "elsewhere")
    made = tiny_corpus()
    renamed = dataclasses.replace(made.card, name="other", emotions=EMOTIONS[::-1])
    save_corpus(make_corpus({SPLIT: made.conversations(SPLIT)}, renamed), tmp_path / "other")
    assert (
        "corpus 'other' has the emotions angry, neutral, sad, happy, the model was trained for happy, sad"
        in refused(one, "--corpus", tmp_path / "other")
    )
    unlabelled = [dataclasses.replace(c, labels=np.full(len(c), -1, np.int32)) for c in made.conversations(SPLIT)]
    save_corpus(make_corpus({SPLIT: unlabelled}, made.card), tmp_path / "unlabelled")
    assert "split 'validation' of corpus 'synthetic-iemocap4' has no labels" in refused(
        one, "--corpus", tmp_path / "unlabelled", *text
    )
    unfinished = shutil.copytree(other, tmp_path / "unfinished")
    (unfinished / "scores.json").unlink()
    assert f"{unfinished} is not finished: resume it with the command" in refused(one, unfinished)
    (tmp_path / "file").write_text("")
    assert exit_status(main, [str(one), "--out", str(tmp_path / "file")]) == 2
    assert "is a file, not a folder: choose another --out" in capfd.readouterr().err
