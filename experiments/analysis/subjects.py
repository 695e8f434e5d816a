"""The runs that are analysed, each with the corpus that it is analysed on."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jmer
from jmer.batch import UNLABELLED
from jmer.data import make_examples
from jmer.data.corpus import Conversation, Corpus, any_labelled
from jmer.data.validation import validate_corpus
from jmer.errors import UserError
from jmer.evaluation.forward import forward_pass
from jmer.evaluation.metrics import Scores, classification_report
from jmer.evaluation.predictor import Predictor
from jmer.modalities import MODALITIES
from jmer.models.contract import example_batch
from jmer.runs import group_runs, is_reported, read_config, seed_folders
from jmer.runs.directory import CONFIG_FILE


@dataclasses.dataclass(frozen=True)
class Subject:
    """A finished run, and the corpus that it is analysed on.

    Attributes:
      run: what `jmer.load_run` returned.
      corpus: fits the run's model.
      predictor: of the run.
    """

    run: jmer.Run
    corpus: Corpus
    predictor: Predictor

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.run.config.seed

    @property
    def modalities(self) -> tuple[str, ...]:
        """The inputs of the model, in the order text, audio, visual."""
        return tuple(m for m in MODALITIES if m in self.predictor.normalization)

    @property
    def dominant(self) -> str | None:
        """The modality that the fusion weights of the others refer to; None for a model without one."""
        return getattr(self.predictor.model.module, "effective_dominant", None)

    def examples(self, split: str) -> list[Conversation]:
        """Returns the examples of a split with normalised features.

        Raises:
          UserError: if the corpus has no such split, or the split has no labels.
        """
        conversations = self.corpus.conversations(split)
        examples = make_examples(conversations, frames=self.predictor.frames, context=self.predictor.context)
        if not any_labelled(examples):
            raise UserError(
                f"split '{split}' of corpus '{self.corpus.card.name}' has no labels: choose another --split"
            )
        return self.predictor.normalize(self.predictor.complete(examples))

    def outputs(self, examples: Sequence[Conversation], pick: Callable[[Any], Any]) -> list[Any]:
        """Returns a part of the network's output for each example, as `predictor.outputs` does."""
        return self.predictor.outputs(examples, pick)

    def output_shapes(self, pick: Callable[[Any], Any]) -> Any:
        """Returns the shapes of what `outputs` picks for one conversation; nothing is computed."""
        conversations = self.corpus.conversations([*self.corpus.splits][-1])[:1]
        examples = make_examples(conversations, frames=self.predictor.frames)
        return self.predictor.output_shapes(self.predictor.normalize(self.predictor.complete(examples[:1])), pick)

    def weighted_modalities(self) -> list[str]:
        """Returns the modalities with fusion weights, the dominant one left out."""
        batch = example_batch(self.predictor.widths, frames=self.predictor.frames)
        passed = jax.eval_shape(forward_pass(self.predictor.model), self.predictor.variables, batch)
        return [m for m in self.modalities if m in passed.weights and m != self.dominant]

    def probabilities(self, examples: Sequence[Conversation]) -> np.ndarray:
        """Returns the probabilities of the emotions, float64 `[N, C]`, utterance after utterance.

        Raises:
          UserError: if a probability is not finite.
        """
        return self.predictor.probabilities(examples)

    def score(self, examples: Sequence[Conversation]) -> Scores:
        """Scores the predictions for examples, whose features may be perturbed."""
        return classification_report(labels(examples), self.probabilities(examples).argmax(-1), self.predictor.emotions)


def labels(examples: Sequence[Conversation]) -> np.ndarray:
    """Returns the gold emotions, int32 `[N]`, utterance after utterance; -1 = unlabelled."""
    return np.concatenate([example.labels for example in examples])


def labelled(examples: Sequence[Conversation]) -> np.ndarray:
    """Returns which utterances have a gold emotion, bool `[N]`."""
    return labels(examples) != UNLABELLED


def available(examples: Sequence[Conversation], modality: str) -> np.ndarray:
    """Returns which utterances have a modality, bool `[N]`."""
    return np.concatenate([example.available[modality] for example in examples])


def load_runs(folders: Sequence[Path], corpus: str | None = None) -> list[Subject]:
    """Reads finished runs of one configuration, and a corpus to analyse them on.

    Args:
      folders: of single runs, or of several seeds (`seed0`, `seed1`, ... in them).
      corpus: what `jmer.load_corpus` takes; None = the training corpus.

    Raises:
      UserError: if a folder has no finished run, the runs do not differ in their seed alone, or the corpus does not fit
        the model.
    """
    folders = [folder for given in folders for folder in seed_folders(given) or [given]]
    for folder in folders:
        if not (folder / CONFIG_FILE).exists():
            raise UserError(f"{folder} is not the folder of a run: it has no {CONFIG_FILE}")
        if not is_reported(folder, read_config(folder)):
            raise UserError(f"{folder} is not finished: resume it with the command that trained it")
    runs = [jmer.load_run(folder) for folder in folders]
    try:
        group_runs(runs)
    except UserError as error:
        remedy = "name runs that differ only in their seed"
        raise UserError(str(error).replace("choose another workdir", remedy)) from error
    loaded = jmer.load_corpus(corpus) if corpus else runs[0].training_corpus()
    validate_corpus(loaded, for_training=False)
    runs[0].predictor.check_card(loaded.card)
    return [Subject(run, loaded, run.predictor) for run in runs]
