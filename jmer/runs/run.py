"""A trained run: its network and what is needed to use it."""

import abc
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import pandas as pd
from ml_collections import ConfigDict

from jmer.batch import Batch
from jmer.data import load_configured, load_corpus
from jmer.data.corpus import IN_MEMORY, Card, Corpus
from jmer.data.folds import configured_fold
from jmer.data.normalization import Standardization
from jmer.data.synthetic import NAMES
from jmer.errors import UserError
from jmer.evaluation.forward import ONE_DEVICE
from jmer.evaluation.metrics import Scores
from jmer.evaluation.predictor import BasePredictor, Data, Predictor
from jmer.extract.manifest import Row
from jmer.extract.sources import DIALOGUE
from jmer.models import Model, build_model
from jmer.runs.directory import SCORES_FILE, RunFacts, damaged, read_as, read_config, read_facts
from jmer.runs.inputs import Dialogue, Extraction, extract_rows, rows_to_predict
from jmer.runs.resume import other_corpus
from jmer.selection import Selection, configured_selection
from jmer.training.active_run import CHECKPOINT_FOLDER
from jmer.training.checkpointing import Checkpoints, Restored
from jmer.training.early_stopping import is_stopped
from jmer.training.metric_writers import JSON_LINES_FILE, read_json_lines
from jmer.training.modulation import make_modulation
from jmer.training.optimizer import make_optimizer
from jmer.training.train_state import create_train_state


@dataclasses.dataclass(frozen=True)
class Results:
    """What `SCORES_FILE` holds.

    Attributes:
      corpus: title of the corpus.
      selection, metric: name of the rule that chose the epoch, and of the score that it looks at.
      majority_emotion: see `jmer.evaluation.metrics.Scores`.
      epoch: the chosen epoch, counted from 1.
      epochs: number of trained epochs.
      stopped: whether early stopping ended training.
      patience: of early stopping, 0 = none.
      splits: split -> its scores.
    """

    corpus: str
    selection: str
    metric: str
    majority_emotion: str
    epoch: int
    epochs: int
    stopped: bool
    patience: int
    splits: Mapping[str, Scores]


class Predicting(abc.ABC):
    """What a run and an ensemble of runs have in common: they predict conversations and score their predictions."""

    config: ConfigDict

    @property
    @abc.abstractmethod
    def predictor(self) -> BasePredictor:
        """What predicts."""

    @abc.abstractmethod
    def training_corpus(self) -> Corpus:
        """Loads the training corpus."""

    @property
    @abc.abstractmethod
    def card(self) -> Card:
        """The training corpus' card."""

    def predict(
        self, data: Data | Dialogue | str | Path, split: str | None = None, *, context: str | None = None
    ) -> pd.DataFrame:
        """Returns a table with a row per utterance, labelled or not.

        Args:
          data: a corpus, its name or folder, a conversation (`jmer.data.make_conversation`), or several. If `jmer
            extract` made the training corpus, also what can be extracted: a manifest, a recording with subtitles beside
            it, subtitles, or a dialogue as a list of texts or of mappings (`speaker`, `transcript`, `file`, ...).
          split, context: see `jmer.evaluation.predictor.BasePredictor.predict`.

        Raises:
          UserError: naming what does not fit the model.

        Example:
          run.predict([{"speaker": "Ann", "transcript": "Sleep well?"}, {"speaker": "Ben", "transcript": "No!"}])
        """
        if (rows := rows_to_predict(data)) is not None:
            name = Path(data).stem if isinstance(data, str | Path) else DIALOGUE
            table = self.predictor.predict(self.extract(rows, name=name).corpus, split, context=context)
            return table.drop(columns="split")
        known = load_corpus(data).checked() if isinstance(data, str | Path) else cast(Data, data)
        return self.predictor.predict(known, split, context=context)

    def extract(self, rows: Sequence[Row], **options: Any) -> Extraction:
        """Makes the features of utterances with the extractors of the training corpus.

        Args:
          rows: see `jmer.extract.sources`.
          options: see `jmer.runs.inputs.extract_rows`.

        Raises:
          UserError: if the features cannot be made as for training.
        """
        return extract_rows(rows, self.card, self.config.model.modalities, **options)

    def evaluate(self, corpus: Corpus | str | Path | None = None) -> dict[str, Scores]:
        """Returns split -> scores, for the splits of a corpus that have labels; nothing is written.

        Args:
          corpus: a corpus, its name or folder; None = the training corpus.

        Raises:
          UserError: naming what does not fit the model, or if there are no labels; see also `training_corpus`.
        """
        if corpus is None:
            corpus = self.training_corpus()
        return self.predictor.evaluate(load_corpus(corpus).checked() if isinstance(corpus, str | Path) else corpus)


@dataclasses.dataclass(frozen=True)
class Run(Predicting):
    """A trained run, at the epoch that its `selection` chose.

    Attributes:
      folder: its directory.
      config: complete, fitted to the training corpus.
      facts: what it was made with, besides its configuration.
      step: the number of the chosen checkpoint, which is read when the network is first used.
      epoch: the chosen epoch, counted from 1.
      epochs: number of trained epochs.
      seconds: training time up to the chosen epoch.
      stopped: whether early stopping ended training before its last epoch.
      mapping: over devices, for predictions.
    """

    folder: Path
    config: ConfigDict
    facts: RunFacts
    step: int
    epoch: int
    epochs: int
    seconds: float
    stopped: bool = False
    mapping: Any = ONE_DEVICE

    def training_corpus(self) -> Corpus:
        """Loads the training corpus from where it was.

        Raises:
          UserError: if it is not there any more, or has changed.
        """
        corpus = recorded_corpus(self.folder, self.config)
        if found := other_corpus(self.folder, self.config, corpus.identity):
            raise UserError(f"{found}; give the corpus that lies in {self.config.data.path} to use it as another one")
        return corpus

    @functools.cached_property
    def model(self) -> Model:
        """The network and its loss."""
        return build_model(self.config)

    @property
    def variables(self) -> Mapping[str, Any]:
        """What `model.module.apply` takes. Raises UserError if the checkpoint is damaged."""
        return self._restored.state.variables

    @property
    def normalization(self) -> Mapping[str, Standardization]:
        """Modality -> normalisation of the features that the network was trained with."""
        return self._restored.normalization

    @functools.cached_property
    def _restored(self) -> Restored:
        widths, frames = {m: self.card.widths[m] for m in self.config.model.modalities}, self.card.frames
        optimizer = make_optimizer(self.config.optimizer, steps=[1] * self.config.training.epochs)
        modulation = make_modulation(self.config.modulation, self.model, widths)
        template = jax.eval_shape(
            lambda: create_train_state(
                self.model, optimizer, widths, self.config.seed, frames=frames, modulation=modulation
            )
        )
        normalization = {m: Standardization.unchanged(width) for m, width in widths.items()}
        one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        sharding = one_device if self.mapping is ONE_DEVICE else self.mapping.state_sharding
        with Checkpoints(self.folder / CHECKPOINT_FOLDER, clean=False) as checkpoints:
            return checkpoints.restore(self.step, template, normalization, sharding)

    @property
    def card(self) -> Card:
        """The training corpus' card."""
        return self.facts.card

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return self.facts.parameters

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the software and the devices that trained the run."""
        return self.facts.versions

    @property
    def command(self) -> str:
        """The command line or call that trained the run."""
        return self.facts.command

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.config.seed

    @property
    def selection(self) -> Selection:
        """The rule that chose the epoch."""
        return configured_selection(self.config)

    @property
    def scores(self) -> dict[str, Scores]:
        """Split -> scores on the training corpus. Raises UserError if the run was not evaluated."""
        path = self.folder / SCORES_FILE
        if not path.exists():
            raise UserError(f"{self.folder} has no {SCORES_FILE}: train it to the end, or evaluate it")
        return dict(read_as(Results, path).splits)

    @property
    def history(self) -> list[dict[str, float | None]]:
        """The metrics of each epoch. Raises UserError if they are missing or damaged."""
        path = self.folder / JSON_LINES_FILE
        if not path.exists():
            raise UserError(f"{path} is missing: put a copy back")
        rows = read_json_lines(path)
        if len(rows) < self.epochs:
            raise damaged(path, ValueError(f"it has {len(rows)} lines: expected one for each of {self.epochs} epochs"))
        for number, row in enumerate(rows, 1):
            if row.get("epoch") != number:
                raise damaged(path, ValueError(f"epoch is {row.get('epoch')} in line {number}: expected {number}"))
        return rows

    @functools.cached_property
    def predictor(self) -> Predictor:
        """The network bound to all that its predictions depend on."""
        return Predictor(
            self.model,
            self.variables,
            self.normalization,
            self.card.emotions,
            context=self.config.data.context,
            frames=self.card.frames,
            batch_size=self.config.training.batch_size,
            precision=self.config.training.matmul_precision,
            mapping=self.mapping,
            majority_emotion=self.config.majority_emotion,
            extractors=self.card.extractors,
            speakers=self.config.data.speakers,
        )

    def apply(self, batch: Batch) -> Any:
        """Returns all that the network computes for a batch with normalised features (`predictor.normalize`)."""
        return self.predictor.apply(batch)


def recorded_corpus(workdir: Path, config: ConfigDict) -> Corpus:
    """Loads what lies where a run's training corpus was.

    Args:
      workdir: the run's directory.
      config: its configuration.

    Raises:
      UserError: if nothing is there.
    """
    path = config.data.path
    if path not in (*NAMES, IN_MEMORY) and not Path(path).exists():
        name = read_facts(workdir).card.name
        raise UserError(
            f"{workdir} was trained on corpus '{name}' in {path}, which is not there: give the corpus "
            "(--corpus), wherever it is now"
        )
    return load_configured(config.data)


def given_corpus(workdir: Path, config: ConfigDict, corpus: Corpus) -> Corpus:
    """Returns what a run evaluates of a corpus: its own fold if it was trained on one of this corpus, else all of it.

    Args:
      workdir: the run's directory.
      config: its configuration.
      corpus: with its own splits.
    """
    try:
        fold = configured_fold(corpus, config.data)
    except UserError:  # a corpus that cannot be divided so is another one
        return corpus
    return corpus if other_corpus(workdir, config, fold.identity) else fold


def load_single_run(
    workdir: Path, *, config: ConfigDict | None = None, mapping: Any = None, step: int | None = None
) -> Run:
    """Finds the epoch that a run's `selection` chose.

    Args:
      workdir: the run's directory.
      config: what `jmer.runs.resume.check_use` accepts; None = as the run was trained.
      mapping: a `jmer.training.Parallel`, to use the run on its devices; None = one device.
      step: of the checkpoint to take instead of the chosen one; None = the chosen one.

    Raises:
      UserError: if there is no run, or it has no finished epoch yet.
    """
    config, facts = config or read_config(workdir), read_facts(workdir)
    with Checkpoints(workdir / CHECKPOINT_FOLDER, clean=False) as checkpoints:
        if checkpoints.newest is None:
            raise UserError(f"{workdir} has no checkpoint yet: train it first")
        last = configured_selection(config).split is None
        chosen = step or (checkpoints.newest if last else checkpoints.best)
        if chosen is None:
            raise UserError(f"no epoch of {workdir} is finished yet: resume its training")
        progress, newest = checkpoints.progress(chosen), checkpoints.progress(checkpoints.newest)
    if progress.batch:
        raise UserError(f"{workdir} stopped in the middle of an epoch: resume its training")
    if not progress.epoch:
        raise UserError(f"no epoch of {workdir} is finished yet: resume its training")
    return Run(
        folder=workdir,
        config=config,
        facts=facts,
        step=chosen,
        epoch=progress.epoch,
        epochs=newest.epoch,
        seconds=progress.seconds,
        stopped=is_stopped(newest, config),
        mapping=ONE_DEVICE if mapping is None else mapping,
    )
