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

from jmer.batch import Batch
from jmer.config import base_config, fit_to_corpus, with_variants
from jmer.data import make_corpus
from jmer.data.batching import batches
from jmer.data.corpus import Corpus
from jmer.data.synthetic import Size, generate
from jmer.evaluation.predictor import Predictor
from jmer.layers.dropout import ConversationDropout
from jmer.models import Model, ModelSpec, build_model, register_model
from jmer.pipeline import Pipeline
from jmer.runs.directory import RunFacts
from jmer.runs.resume import Request, claim
from jmer.training import Parallel, TrainState, create_train_state, loop, make_optimizer, make_parallel, train_step

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
    return _changed(config, changes)


def _changed(config, changes):
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


def by_shifts(buckets):
    """The changes for a curriculum of so many buckets, 0 = for none."""
    return {"curriculum__measure": "shift" if buckets else "none", "curriculum__buckets": max(buckets, 1)}


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


LINEAR = ModelSpec(
    "linear",
    Linear,
    mean_square,
    defaults={
        "model.dropout_rate": 0.2,
        "training.epochs": 7,
        "training.batch_size": 4,
        "training.parallel": "jit",
        "optimizer.learning_rate": 0.01,
    },
    variants={
        "slow": {"optimizer.learning_rate": 0.001},
        "slower": {"optimizer.learning_rate": 0.0001},
        "still_slow": {"optimizer.learning_rate": 0.001},
        "usual": {"optimizer.learning_rate": 0.01},
        "text": {"model.modalities": ("text",)},
        "visual": {"model.modalities": ("visual",)},
    },
)


# Each utterance is by itself, so that a row may hold several conversations.
PACKED_LINEAR = dataclasses.replace(LINEAR, name="packed_linear", packing=True)


def linear_config(**changes):
    """Returns the configuration of the smallest model, two epochs of three packed steps; see `tiny_config`."""
    register_model(PACKED_LINEAR)
    config = base_config(PACKED_LINEAR.name)
    config.training.epochs = 2
    return _changed(config, changes)


def linear_model(dropout_rate=0.0) -> Model:
    """Returns the smallest model, whose loss is the mean square of its logits: it compiles in no time."""
    return Model(LINEAR, Linear(dropout_rate), mean_square)


@dataclasses.dataclass(frozen=True)
class Start:
    """A network ready to be trained: pipeline, model, mapping over devices, optimizer, first state, mapped step."""

    pipeline: Pipeline
    model: Model
    mapping: Parallel
    optimizer: optax.GradientTransformation
    state: TrainState
    step: Callable

    def batches(self, count):
        """Yields the first `count` batches of a training run, however many epochs they take."""
        config = self.pipeline.config
        options = {"batch_size": config.training.batch_size, "packing": self.pipeline.packing, "seed": config.seed}
        epochs = (
            batches(
                self.pipeline.examples["train"],
                self.pipeline.widths,
                **options,
                epoch=epoch,
                row_multiple=self.mapping.row_multiple,
            )
            for epoch in itertools.count()
        )
        return itertools.islice(itertools.chain.from_iterable(epochs), count)

    @property
    def predictor(self):
        """The network before any training, as a predictor on one device."""
        card = self.pipeline.card
        return Predictor(
            self.model,
            self.state.variables,
            self.pipeline.normalization,
            card.emotions,
            batch_size=self.pipeline.config.training.batch_size,
        )


def start(config, corpus) -> Start:
    """Does what training does before its first step."""
    pipeline = Pipeline.for_training(config, corpus)
    model = build_model(pipeline.config)
    mapping = make_parallel(config.training.parallel, config.training.devices)
    optimizer = make_optimizer(config.optimizer, steps=pipeline.schedule.steps)
    state = mapping.replicate(create_train_state(model, optimizer, pipeline.widths, config.seed))
    step = mapping.step(functools.partial(train_step, model=model, optimizer=optimizer))
    return Start(pipeline, model, mapping, optimizer, state, step)


def train(config, corpus, workdir, log=None):
    """Trains a run to its end, from wherever it stands, without its results; returns False if it was finished."""
    return train_together([config], corpus, [workdir], log)


def train_together(configs, corpus, workdirs, log=None):
    """Trains runs in one program, as `train` does."""
    pipeline = Pipeline.for_training(configs[0], corpus)
    fitted = [fit_to_corpus(config, corpus.card, pipeline.examples["train"]) for config in configs]
    facts = RunFacts(corpus.card, corpus.identity, {}, "train", 1)
    with claim([Request(workdir, config, facts) for config, workdir in zip(fitted, workdirs, strict=True)]):
        return loop.train(pipeline, build_model(pipeline.config), fitted, workdirs, log=log or (lambda line: None))


@functools.cache
def tiny_step(name: str, **model_fields: str) -> tuple[Callable, TrainState, Batch]:
    """Returns a training step, a first state and a batch of a model of the registry at its smallest, with dropout."""
    config = with_variants(base_config(name), "tiny")
    config.model.update(model_fields)
    config.optimizer.update(name="sgd", learning_rate=0.1)
    pipeline = Pipeline.for_training(config, tiny_corpus())
    model = build_model(pipeline.config)
    optimizer = make_optimizer(pipeline.config.optimizer, steps=pipeline.schedule.steps)
    state = create_train_state(model, optimizer, pipeline.widths, 0)
    return functools.partial(train_step, model=model, optimizer=optimizer), state, next(pipeline.train_batches(0))
