"""From a trained run to its results: scores, a report, and predictions for any corpus that fits."""

import dataclasses
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from jmer.data.corpus import Card, Corpus
from jmer.errors import UserError
from jmer.evaluation.html_report import PredictedSplit, write_html_report
from jmer.evaluation.predict import forward
from jmer.evaluation.predictions import corpus_title, prediction_table, write_predictions
from jmer.evaluation.report import REPORT_FILE, Report, split_sizes, write_report
from jmer.training.folder import (
    OTHER_CORPORA_FOLDER,
    PREDICTION_FOLDER,
    SCORES_FILE,
    read_config,
    read_facts,
    read_json,
    write_json,
)
from jmer.training.log import JSON_LINES_FILE, read_json_lines
from jmer.training.parallel import is_lead, make_parallel
from jmer.training.precision import matmul_precision
from jmer.training.setup import set_up
from jmer.training.trained import load_run


def evaluate(
    workdir: Path,
    corpus: Corpus,
    *,
    say: Callable[[str], None],
    labelled: bool = True,
    config: ConfigDict | None = None,
) -> None:
    """Predicts every split of a corpus with a run's chosen epoch; scores and reports those with labels.

    Results for the training corpus go to the run's folder, those for another one to a folder of its own inside it.

    Args:
      workdir: the run's folder.
      corpus: the training corpus or another one with the same emotions, modalities and widths.
      say: prints a line.
      labelled: False = write predictions only, of every utterance, though the model may have been trained without the
        unlabelled ones around (`data.context`).
      config: what `jmer.training.folder.check_use` accepts; None = as the run was trained.

    Raises:
      UserError: if there is no run, it has no checkpoint, or the corpus does not fit it or lacks the labels.
    """
    saved, facts = read_config(workdir), read_facts(workdir)
    config = config or saved
    corpus = _with_emotions_of(facts.card, corpus)
    _check_fit(facts.card, corpus.card, config)
    if not labelled:
        config = config.copy_and_resolve_references()
        config.data.context = "mask_unlabelled"
    parallel = make_parallel(config.training.parallel, config.training.devices)
    trained = load_run(workdir, config=config, parallel=parallel)
    setup = set_up(config, corpus, trained.statistics, parallel)
    if labelled and not any(map(setup.is_labelled, setup.conversations)):
        raise UserError(f"corpus '{corpus.card.name}' has no labels to score: use --mode predict")
    if corpus.card == facts.card and config.data.path == saved.data.path:
        folder = workdir
    else:
        folder = workdir / OTHER_CORPORA_FOLDER / _folder_name(config.data.path, corpus.card)
    reporting = labelled and is_lead()
    history = _history(workdir) if reporting else []
    run = setup.parallel.forward(forward(setup.model, attention=True))
    scores, shown = {}, {}
    for split in setup.conversations:
        with matmul_precision(config.training.matmul_precision):
            predictions = setup.predict(run, trained.variables, split)
        if labelled and setup.is_labelled(split):
            scores[split] = setup.score(predictions, split)
            shown[split] = PredictedSplit(setup.conversations[split], predictions)
        if not is_lead():
            continue
        rows = setup.conversations[split]
        table = prediction_table(
            rows, corpus.card, predictions.probabilities, predictions.weights, predictions.attention
        )
        path = folder / PREDICTION_FOLDER / f"{split}.csv"
        write_predictions(table, path)
        say(f"wrote {path}")
    if not reporting:
        return
    report = Report(
        model=config.model.name.upper(),
        card=corpus.card,
        sizes=split_sizes(corpus),
        scores=scores,
        selection=config.selection,
        epoch=trained.position.epoch,
        epochs=trained.epochs,
        history=history,
        config=config.to_dict(),
        versions=facts.versions,
        command=facts.command,
        parameters=facts.parameters,
        seconds=trained.position.seconds,
    )
    path = write_report(folder, report)
    # To look into the utterances that a model was trained on says little, and they are the most.
    page = write_html_report(folder, report, {split: shown[split] for split in shown if split != "train"})
    splits = {split: dataclasses.asdict(result) for split, result in scores.items()}
    chosen = {"selection": config.selection, "epoch": trained.position.epoch, "epochs": trained.epochs}
    write_json(folder / SCORES_FILE, {"corpus": corpus_title(corpus.card), **chosen, "splits": splits})
    for split, result in scores.items():
        say(f"{split}: weighted F1 {100 * result.weighted_f1:.2f} %, accuracy {100 * result.accuracy:.2f} %")
    say(f"report: {path}, {page.name}")


def _history(workdir: Path) -> list[dict]:
    path = workdir / JSON_LINES_FILE
    if not path.exists():
        raise UserError(f"{path} is missing, and the report shows it: put a copy back, or use --mode predict")
    return read_json_lines(path)


def is_reported(workdir: Path, epochs: int) -> bool:
    """Whether the report in a run's folder is that of its `epochs` epochs, and not of a shorter run before it."""
    path = workdir / SCORES_FILE
    return path.exists() and read_json(path)["epochs"] == epochs and (workdir / REPORT_FILE).exists()


def _folder_name(path: str, card: Card) -> str:
    """Names a corpus' folder so that no two corpora share one, whatever they are called."""
    content = f"{Path(path).absolute()} {card}"
    return f"{re.sub(r'[^A-Za-z0-9_]+', '_', card.name)}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _with_emotions_of(card: Card, corpus: Corpus) -> Corpus:
    """Gives a corpus that names no emotions, having no labels, those of the model."""
    return (
        corpus
        if corpus.card.emotions
        else dataclasses.replace(corpus, card=dataclasses.replace(corpus.card, emotions=card.emotions))
    )


def _check_fit(trained: Card, other: Card, config: ConfigDict) -> None:
    if other.emotions != trained.emotions:
        raise UserError(
            f"corpus '{other.name}' has the emotions {', '.join(other.emotions)}, the model was trained for "
            f"{', '.join(trained.emotions)}: convert the corpus with these, in this order"
        )
    if other.frames != trained.frames:
        kinds = {False: "one vector per utterance", True: "frames in each utterance"}
        raise UserError(
            f"corpus '{other.name}' has {kinds[other.frames]}, the model was trained on {kinds[trained.frames]}: use "
            "features of the same kind"
        )
    for modality in config.model.modalities:
        if other.widths.get(modality) != trained.widths[modality]:
            raise UserError(
                f"corpus '{other.name}' has {modality} features of width {other.widths.get(modality, 0)}, the model "
                f"was trained on width {trained.widths[modality]}: use features of the same extractor"
            )
