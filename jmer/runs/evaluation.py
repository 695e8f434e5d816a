"""The results of a run: predictions, scores and reports in its directory."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jmer.data.corpus import Corpus, build_corpus
from jmer.data.examples import make_examples
from jmer.data.findings import WARNING, Finding
from jmer.data.outliers import constant_lines, outlier_lines
from jmer.data.probing import probe
from jmer.errors import UserError
from jmer.evaluation.html_report import write_html_report
from jmer.evaluation.html_viewer import PredictedSplit
from jmer.evaluation.metrics import Scores
from jmer.evaluation.predictions import corpus_title, prediction_table
from jmer.evaluation.report import REPORT_FILE, Report, main_scores, split_sizes, write_report
from jmer.files import check_writable
from jmer.pipeline import Pipeline
from jmer.runs.directory import (
    OTHER_CORPORA_FOLDER,
    SCORES_FILE,
    read_as,
    read_config,
    read_facts,
    write_json,
)
from jmer.runs.initial_weights import read_record
from jmer.runs.predictions import write_split
from jmer.runs.resume import other_corpus
from jmer.runs.run import Results, Run, load_single_run
from jmer.training.early_stopping import stopping_reason
from jmer.training.parallel import is_main_process, make_parallel


def write_results(
    workdir: Path,
    corpus: Corpus,
    *,
    log: Callable[[str], None],
    labelled: bool = True,
    config: ConfigDict | None = None,
    out: Path | None = None,
) -> dict[str, Scores]:
    """Predicts every split of a corpus with a run's chosen epoch; scores and reports those that have labels.

    Results for the training corpus, wherever it lies, go to the run's directory, those for another one to a directory
    of their own in it.

    Args:
      workdir: the run's directory.
      corpus: the training corpus, or another one that fits the model.
      log: prints a line.
      labelled: False = write predictions only, of every utterance, though the model may have been trained without the
        unlabelled ones (`data.context`).
      config: what `jmer.runs.resume.check_use` accepts; None = as the run was trained.
      out: the directory for the results; None = that of the run, or one in it.

    Returns:
      Split -> scores; empty if `labelled` is False.

    Raises:
      UserError: if there is no run, it has no checkpoint, or the corpus does not fit it or lacks labels.
    """
    saved = read_config(workdir)
    config = (config or saved).copy_and_resolve_references()
    mapping = make_parallel(config.training.parallel, config.training.devices)
    run = load_single_run(workdir, config=config, mapping=mapping)
    other = other_corpus(workdir, saved, corpus.identity)
    folder = out or (workdir / OTHER_CORPORA_FOLDER / _folder_name(corpus) if other else workdir)
    check_writable(folder, "write the results elsewhere (--out)")
    predictor = run.predictor
    predictor.check_card(corpus.card)
    if not labelled:
        config.data.context = "mask_unlabelled"
    card = dataclasses.replace(corpus.card, emotions=run.card.emotions)
    corpus = _completed(dataclasses.replace(corpus, card=card), run)
    pipeline = Pipeline.for_corpus(config, corpus, run.normalization)
    if labelled and not any(map(pipeline.is_labelled, pipeline.examples)):
        raise UserError(f"corpus '{card.name}' has no labels to score: predict it instead")
    if other:
        log(f"{other}; results go to {folder}")
    reporting = labelled and is_main_process()
    findings = probe(corpus) if reporting else ()
    history = run.history if reporting else []
    scores, shown, unprepared = {}, {}, []
    for split, examples in pipeline.examples.items():
        raw = make_examples(corpus.conversations(split), frames=card.frames, context=config.data.context)
        unprepared += outlier_lines(split, predictor.outliers(raw), run.normalization)
        predictions = predictor.predict_normalized(examples, **pipeline.evaluation_layout)
        if labelled and pipeline.is_labelled(split):
            scores[split] = predictor.score(examples, predictions)
            shown[split] = PredictedSplit(examples, predictions)
        if is_main_process():
            table = prediction_table(
                examples,
                card,
                predictions.probabilities,
                predictions.weights,
                predictions.attention,
                attributes=predictions.attributes,
            )
            log(f"wrote {write_split(folder, split, table)}")
    for line in unprepared:
        log(line)
    if reporting:
        # Utterances of the training split are the most, and show little.
        shown.pop("train", None)
        _write_reports(folder, run, corpus, scores, shown, history, unprepared, findings, log)
    return scores


def is_reported(workdir: Path, config: ConfigDict) -> bool:
    """Returns whether the report in a run's directory is that of the end of a configuration's run."""
    path = workdir / SCORES_FILE
    if not (path.exists() and (workdir / REPORT_FILE).exists()):
        return False
    found, plan = read_as(Results, path), config.training
    ended = found.epochs == plan.epochs or (found.stopped and found.patience == plan.patience)
    return ended and found.majority_emotion == config.majority_emotion


def _completed(corpus: Corpus, run: Run) -> Corpus:
    """Adds the modalities that a corpus lacks and the model reads, as unavailable."""
    lacking = {m: width for m, width in run.predictor.widths.items() if m not in corpus.card.widths}
    if not lacking:
        return corpus
    splits = {split: run.predictor.complete(corpus.conversations(split)) for split in corpus.splits}
    card = dataclasses.replace(corpus.card, widths={**corpus.card.widths, **lacking})
    return dataclasses.replace(build_corpus(splits, card), source=corpus.source)


def _write_reports(
    folder: Path,
    run: Run,
    corpus: Corpus,
    scores: dict[str, Scores],
    shown: dict[str, PredictedSplit],
    history: list[dict],
    unprepared: list[str],
    findings: Sequence[Finding],
    log: Callable[[str], None],
) -> None:
    """Writes the reports and the scores."""
    facts = read_facts(run.folder)
    report = Report(
        model=run.config.model.name.upper(),
        card=corpus.card,
        sizes=split_sizes(corpus),
        unprepared=[*constant_lines(run.normalization), *unprepared],
        findings=findings,
        scores=scores,
        selection=run.selection,
        epoch=run.epoch,
        epochs=run.epochs,
        stopped=stopping_reason(run.config, run.epochs) if run.stopped else "",
        remarks=_remarks(run),
        history=history,
        config=run.config.to_dict(),
        versions=facts.versions,
        command=facts.command,
        parameters=facts.parameters,
        seconds=run.seconds,
    )
    path = write_report(folder, report)
    page = write_html_report(folder, report, shown)
    results = Results(
        corpus=corpus_title(corpus.card),
        selection=run.config.selection,
        metric=run.selection.metric,
        majority_emotion=run.config.majority_emotion,
        epoch=run.epoch,
        epochs=run.epochs,
        stopped=run.stopped,
        patience=run.config.training.patience,
        splits=scores,
    )
    write_json(folder / SCORES_FILE, dataclasses.asdict(results))
    for split, result in scores.items():
        log(f"{split}: {main_scores(result, run.selection)}")
    for finding in findings:
        if finding.verdict == WARNING:
            log(finding.line)
    log(f"report: {path}, {page.name}")


def _remarks(run: Run) -> dict[str, str]:
    """Returns name -> value of what else is to be known of how a run was trained."""
    record, changes = read_record(run.folder), "; ".join(map(str, run.facts.changes))
    return ({} if record is None else record.facts()) | ({"changed on resume": changes} if changes else {})


def _folder_name(corpus: Corpus) -> str:
    """Returns the name of a corpus' directory, which differs between corpora even if their names are the same."""
    return f"{re.sub(r'[^A-Za-z0-9_]+', '_', corpus.card.name)[:100]}-{corpus.identity.fingerprint[:8]}"
