"""A corpus and a network so small that tests can train them."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jmer.config import base_config, fit_to_corpus, with_variants
from jmer.data import make_corpus, normalization
from jmer.data.corpus import Corpus
from jmer.data.packing import steps_per_epoch
from jmer.data.synthetic import Size, generate
from jmer.layers.dropout import ConversationDropout
from jmer.models.spec import Model, ModelSpec
from jmer.training.optimizer import make_optimizer
from jmer.training.parallel import make_parallel
from jmer.training.setup import Setup, set_up
from jmer.training.state import State, create_state
from jmer.training.step import train_step

EMOTIONS = ("happy", "sad", "neutral", "angry")
WIDTHS = {"text": 6, "audio": 4, "visual": 5}
SIZES = {"train": Size(11, 50, 8), "validation": Size(5, 22, 8), "test": Size(7, 25, 8)}


def tiny_corpus() -> Corpus:
    """Makes up a corpus in which some utterances have no label, and some lack one or all of their modalities."""
    corpus = generate("synthetic-iemocap4", sizes=SIZES, widths=WIDTHS)
    rng = np.random.default_rng(0)
    return make_corpus(
        {split: [_with_gaps(c, rng) for c in corpus.conversations(split)] for split in corpus.splits}, corpus.card
    )


def _with_gaps(conversation, rng):
    anything = rng.random(len(conversation)) < 0.9
    available = {m: anything & (rng.random(len(conversation)) < 0.8) for m in WIDTHS}
    return dataclasses.replace(
        conversation,
        labels=np.where(rng.random(len(conversation)) < 0.15, -1, conversation.labels).astype(np.int32),
        available=available,
        features={m: np.where(available[m][:, None], x, 0) for m, x in conversation.features.items()},
    )


def tiny_config(**changes):
    """Returns LFVD's configuration at its smallest, two epochs of three steps; `changes` are `section__field=value`."""
    config = with_variants(base_config("lfvd"), "tiny")
    config.model.dag_layers = 1
    config.training.batch_size = 4
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


def defaults(name):
    """The sections `model` and `loss` of a model's base configuration."""
    config = base_config(name).to_dict()
    return {"model": config["model"], "loss": config["loss"]}


class Output(NamedTuple):
    logits: jax.Array


class Linear(nn.Module):
    """Logits that are linear in the text, from which training drops some entries."""

    dropout_rate: float = 0.0
    num_classes: int = len(EMOTIONS)

    @nn.compact
    def __call__(self, batch, *, train=False):
        text = ConversationDropout(self.dropout_rate)(batch.features["text"], train=train, row_ids=batch.row_ids)
        return Output(nn.Dense(self.num_classes)(text))


def mean_square(output, batch, axis=None):
    """The mean square of the logits."""
    squares = jnp.square(output.logits).sum(-1)
    return {"squares": (0.5, jnp.where(batch.mask, squares, 0).sum(), batch.mask.sum())}


LINEAR = ModelSpec("linear", Linear, mean_square, defaults={"model.dropout_rate": 0.2})


def linear_model(dropout_rate=0.0) -> Model:
    """Returns the smallest model, whose loss is the mean square of its logits: it compiles in no time."""
    return Model(LINEAR, Linear(dropout_rate), mean_square)


@dataclasses.dataclass(frozen=True)
class Run:
    """A network that is ready to be trained: its set-up, its optimizer, its first state and its mapped step."""

    setup: Setup
    optimizer: optax.GradientTransformation
    state: State
    step: Callable

    def batches(self, count):
        """Gives the first `count` batches of a training run."""
        config = self.setup.config
        epochs = (self.setup.training_batches(seed=config.seed, epoch=epoch) for epoch in itertools.count())
        return itertools.islice(itertools.chain.from_iterable(epochs), count)


def start(config, corpus) -> Run:
    """Does what training does before its first step."""
    conversations = corpus.conversations("train")
    config = fit_to_corpus(config, corpus.card, conversations)
    widths = {m: corpus.card.widths[m] for m in config.model.modalities}
    parallel = make_parallel(config.training.parallel, config.training.devices)
    setup = set_up(config, corpus, normalization.fit(conversations, widths), parallel)
    steps = [steps_per_epoch(len(conversations), config.training.batch_size)] * config.training.epochs
    optimizer = make_optimizer(config.optimizer, steps=steps)
    state = parallel.replicate(create_state(setup.model, optimizer, widths, config.seed))
    step = parallel.step(functools.partial(train_step, model=setup.model, optimizer=optimizer))
    return Run(setup, optimizer, state, step)
