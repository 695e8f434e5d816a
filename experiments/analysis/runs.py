"""Finished runs of one configuration, ready to be asked about any conversations of a corpus."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.special import softmax

from jmer.batch import MODALITIES, UNLABELLED, Batch
from jmer.data import normalization
from jmer.data.batching import batches, shape_for
from jmer.data.corpus import Conversation, Corpus, any_labelled
from jmer.data.load import load_corpus
from jmer.data.rows import batch_rows
from jmer.data.validation import validate_corpus
from jmer.errors import UserError
from jmer.evaluation.metrics import Scores, classification_report
from jmer.evaluation.predict import by_conversation
from jmer.training.folder import COMPUTATION, CONFIG_FILE, check_same, read_config, seed_folders
from jmer.training.results import is_reported
from jmer.training.trained import TrainedRun, load_run


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, and the corpus that it is analysed on.

    Attributes:
      folder: the run's.
      trained: what it ended with.
      corpus: has the modalities, widths and emotions that the run was trained with.
      apply: `(variables, batch) -> output`, the compiled network; one for all runs of a configuration, so that each
        padded length is compiled once.
    """

    folder: Path
    trained: TrainedRun
    corpus: Corpus
    apply: Callable[[Any, Batch], Any]

    @property
    def seed(self) -> int:
        """What tells it from the other runs."""
        return self.trained.config.seed

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that the model reads, in the order text, audio, visual."""
        return tuple(m for m in MODALITIES if m in self.trained.statistics)

    @property
    def lead(self) -> str | None:
        """The modality that the others' weights refer to, for a model that has such a one."""
        return getattr(self.trained.model.module, "lead", None)

    def conversations(self, split: str) -> list[Conversation]:
        """Returns what the model reads of a split: conversations with features normalised as in training.

        Raises:
          UserError: if the corpus has no such split, or it has no label.
        """
        rows = batch_rows(self.corpus, split, context=self.trained.config.data.context)
        if not any_labelled(rows):
            raise UserError(f"split '{split}' of corpus '{self.corpus.card.name}' has no labels: name another --split")
        return normalization.apply(rows, self.trained.statistics)

    def outputs(self, conversations: Sequence[Conversation], pick: Callable[[Any], Any]) -> list[Any]:
        """Returns what the network computes for each conversation, without padding.

        Args:
          conversations: `k` conversations of `n_i` utterances, as `conversations` gives them.
          pick: takes from the network's output what is wanted, arrays `[B, T, ...]` in any pytree.

        Returns:
          `k` pytrees of NumPy arrays `[n_i, ...]`.
        """
        outputs = (
            (batch.conversation_ids, jax.device_get(pick(self.apply(self.trained.variables, batch))))
            for batch in self._batches(conversations)
        )
        return by_conversation(outputs, conversations)

    def shapes(self, pick: Callable[[Any], Any]) -> Any:
        """Returns the shapes of what `outputs` would pick, of one conversation and without computing anything."""
        rows = batch_rows(self.corpus, [*self.corpus.splits][-1])[:1]
        (batch,) = self._batches(normalization.apply(rows, self.trained.statistics))
        return jax.eval_shape(lambda batch: pick(self.apply(self.trained.variables, batch)), batch)

    def probabilities(self, conversations: Sequence[Conversation]) -> np.ndarray:
        """Returns the emotions' probabilities, float64 `[N, C]`, utterance after utterance.

        Raises:
          UserError: if one is not finite.
        """
        logits = np.concatenate(self.outputs(conversations, lambda output: output.logits)).astype(np.float64)
        if not np.isfinite(logits).all():
            raise UserError(f"{self.folder} predicts numbers that are not finite: train it with a lower learning rate")
        return softmax(logits, axis=-1)

    def score(self, conversations: Sequence[Conversation]) -> Scores:
        """Scores the predictions for conversations, whose features may have been changed."""
        predictions = self.probabilities(conversations).argmax(-1)
        return classification_report(labels(conversations), predictions, self.corpus.card.emotions)

    def _batches(self, conversations: Sequence[Conversation]):
        plan = self.trained.config.training
        several, size = self.trained.model.spec.packing, plan.batch_size
        shape = shape_for(conversations, batch_size=size, several=several, buckets=plan.buckets)
        widths = {m: len(s.mean) for m, s in self.trained.statistics.items()}
        return batches(conversations, widths, batch_size=size, **shape)


def labels(conversations: Sequence[Conversation]) -> np.ndarray:
    """Returns the gold emotions, int32 `[N]`, utterance after utterance; -1 = unlabelled."""
    return np.concatenate([conversation.labels for conversation in conversations])


def labelled(conversations: Sequence[Conversation]) -> np.ndarray:
    """Returns which utterances have a gold emotion, bool `[N]`."""
    return labels(conversations) != UNLABELLED


def available(conversations: Sequence[Conversation], modality: str) -> np.ndarray:
    """Returns which utterances have a modality, bool `[N]`."""
    return np.concatenate([conversation.available[modality] for conversation in conversations])


def load_runs(folders: Sequence[Path], corpus: str | None = None) -> list[Run]:
    """Reads finished runs of one configuration, and a corpus to analyse them on.

    Args:
      folders: of single runs, or of several seeds (`seed0`, `seed1`, ... in them).
      corpus: a folder or a synthetic corpus' name; None = that of training.

    Raises:
      UserError: if a folder holds no finished run, the runs differ by more than the seed or not even by that, or the
        corpus does not fit them.
    """
    folders = [folder for given in folders for folder in seed_folders(given) or [given]]
    _check_repetitions(folders)
    runs = [load_run(folder) for folder in folders]
    first = runs[0]
    loaded = load_corpus(corpus or first.config.data.path)
    validate_corpus(loaded, for_training=False)
    for folder, run in zip(folders, runs, strict=True):
        if run.card != first.card:
            raise UserError(f"{folder} was trained on another version of '{run.card.name}' than {folders[0]}: leave it")
    _check_fit(first, loaded)
    apply = jax.jit(functools.partial(first.model.module.apply, train=False))
    return [Run(folder, run, loaded, apply) for folder, run in zip(folders, runs, strict=True)]


def _check_repetitions(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not (folder / CONFIG_FILE).exists():
            raise UserError(f"{folder} holds no run: it has no {CONFIG_FILE}; name a folder that a training run made")
    configs = [read_config(folder) for folder in folders]
    for folder, config in zip(folders, configs, strict=True):
        try:
            check_same(folder, config, configs[0], ignore=("seed", *COMPUTATION))
        except UserError as error:
            remedy = "name runs that differ by their seed alone"
            raise UserError(str(error).replace("name another --workdir", remedy)) from error
        if not is_reported(folder, config.training.epochs):
            raise UserError(f"{folder} is not finished: give the command again that it was trained with")
    seeds = [config.seed for config in configs]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"the seeds {', '.join(map(str, seeds))} are not all different: name each run once")


def _check_fit(run: TrainedRun, corpus: Corpus) -> None:
    def read(card):
        return card.emotions, card.frames, {m: card.widths.get(m) for m in run.config.model.modalities}

    if read(corpus.card) != read(run.card):
        raise UserError(
            f"corpus '{corpus.card.name}' does not fit runs on '{run.card.name}': name one with the same emotions, and "
            f"the same widths of {', '.join(run.config.model.modalities)}"
        )
