"""The measured cases: a model with its configuration, on batches of a corpus' shape."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

import jmer
from experiments.benchmarks.side import BFLOAT16, FLOAT32, JMER
from jmer.batch import Batch
from jmer.data.batching import batches
from jmer.data.corpus import Conversation
from jmer.data.packing import make_packing
from jmer.data.synthetic import Size, generate
from jmer.errors import UserError
from jmer.pipeline import Pipeline

EXPERIMENTS = {
    ("lfvd", "iemocap"): "lfvd_iemocap",
    ("lfvd", "meld"): "lfvd_meld",
    ("dagerc", "iemocap"): "dagerc_iemocap",
    ("dagerc", "meld"): "dagerc_meld",
    ("sdt", "iemocap"): "sdt_iemocap",
    ("sdt", "meld"): "sdt_meld",
    ("lpgnet", "iemocap"): "lpgnet_iemocap6",
    ("concat_mlp", "iemocap"): "concat_mlp_iemocap",
    ("concat_mlp", "meld"): "concat_mlp_meld",
    ("dialoguernn", "iemocap"): "dialoguernn_iemocap",
    ("dialoguernn", "meld"): "dialoguernn_meld",
    ("dialoguegcn", "iemocap"): "dialoguegcn_iemocap",
    ("dialoguegcn", "meld"): "dialoguegcn_meld",
    ("cogmen", "iemocap"): "cogmen_iemocap",
    ("cogmen", "meld"): "cogmen_meld",
    ("m3net", "iemocap"): "m3net_iemocap",
    ("m3net", "meld"): "m3net_meld",
    ("graphsmile", "iemocap"): "graphsmile_iemocap",
    ("graphsmile", "meld"): "graphsmile_meld",
    ("mmgcn", "iemocap"): "mmgcn_iemocap",
    ("mmgcn", "meld"): "mmgcn_meld",
    ("mmdfn", "iemocap"): "mmdfn_iemocap",
    ("mmdfn", "meld"): "mmdfn_meld",
    ("multiemo", "iemocap"): "multiemo_iemocap",
    ("multiemo", "meld"): "multiemo_meld",
    ("lsdgnn", "iemocap"): "lsdgnn_iemocap",
    ("lsdgnn", "meld"): "lsdgnn_meld",
    ("dialoguecrn", "iemocap"): "dialoguecrn_iemocap",
    ("dialoguecrn", "meld"): "dialoguecrn_meld",
    ("m2fnet_like", "iemocap"): "m2fnet_like_iemocap",
    ("m2fnet_like", "meld"): "m2fnet_like_meld",
}
"""(model, shape) -> experiment, in the order of the table's rows."""


class Shape(NamedTuple):
    """Sizes of the measured batches.

    Attributes:
      corpus: the synthetic corpus that generates it.
      batch: of the batch for training and prediction; it has the corpus' longest conversation.
      single: utterances of the conversation whose latency is measured.
      epoch: of the training split; None = that of the corpus.
    """

    corpus: str
    batch: Size
    single: int
    epoch: Size | None = None


SHAPES = {
    "iemocap": Shape("synthetic-iemocap6", Size(16, 776, 110), single=49),
    "meld": Shape("synthetic-meld", Size(32, 351, 33), single=10),
}
WIDTHS = {"text": 1024, "audio": 300, "visual": 342}

SMOKE_SHAPES = {
    "iemocap": Shape("synthetic-iemocap6", Size(6, 60, 20), single=6, epoch=Size(40, 400, 20)),
    "meld": Shape("synthetic-meld", Size(4, 40, 15), single=4, epoch=Size(80, 600, 15)),
}
SMOKE_WIDTHS = {"text": 6, "audio": 4, "visual": 5}


@dataclasses.dataclass(frozen=True)
class Case:
    """A model on a shape.

    Attributes:
      model, shape: names.
      smoke: whether it is tiny, for tests of the program.
      precision: of the computation, in `PRECISIONS`.
      config: fitted to the emotions and modalities.
      widths: modality -> feature width, of the model's modalities.
      padded: NumPy arrays, a row per conversation, padded to the longest.
      packed: the same conversations, several per row.
      single: one conversation, not padded.
    """

    model: str
    shape: str
    smoke: bool
    precision: str
    config: ConfigDict
    widths: Mapping[str, int]
    padded: Batch
    packed: Batch
    single: Batch

    @property
    def utterances(self) -> int:
        """Real utterances of the batch."""
        return int(self.padded.mask.sum())

    def batch(self, side: str) -> Batch:
        """The batch in the layout of a side."""
        return self.packed if side == JMER else self.padded


def make_case(model: str, shape: str, *, smoke: bool = False, precision: str = FLOAT32) -> Case:
    """Generates the batches, the same in each process, and reads the configuration.

    Args:
      model, shape: in `EXPERIMENTS`.
      smoke: True = tiny.
      precision: of the computation, in `PRECISIONS`.

    Raises:
      UserError: if the experiment's file is invalid, or the model cannot compute in this precision.
    """
    sizes = _shape(shape, smoke)
    corpus = generate(
        sizes.corpus,
        sizes={"train": sizes.batch, "validation": Size(1, sizes.single, sizes.single)},
        widths=_widths(smoke),
    )
    pipeline = Pipeline.for_training(_config(model, shape, smoke, precision), corpus)
    training, widths = pipeline.examples["train"], pipeline.widths
    padded, packed = padded_to_longest(training, widths), packed_rows(training, widths)
    single = padded_to_longest(pipeline.examples["validation"], widths)
    return Case(model, shape, smoke, precision, pipeline.config, widths, padded, packed, single)


def epoch_pipeline(case: Case) -> Pipeline:
    """Returns the pipeline of the corpus of the case's shape, with the case's widths."""
    shape = _shape(case.shape, case.smoke)
    sizes = shape.epoch and {"train": shape.epoch, "validation": Size(1, shape.single, shape.single)}
    corpus = generate(shape.corpus, sizes=sizes, widths=_widths(case.smoke))
    return Pipeline.for_training(_config(case.model, case.shape, case.smoke, case.precision), corpus)


def padded_to_longest(conversations: Sequence[Conversation], widths: Mapping[str, int]) -> Batch:
    """Returns all conversations in one batch, padded to the longest of them."""
    (batch,) = batches(conversations, widths, batch_size=len(conversations), lengths=[max(map(len, conversations))])
    return batch


def packed_rows(conversations: Sequence[Conversation], widths: Mapping[str, int]) -> Batch:
    """Returns all conversations in one batch, several per row."""
    packing = make_packing(conversations, batch_size=len(conversations))
    (batch,) = batches(conversations, widths, batch_size=len(conversations), packing=packing)
    return batch


def _config(model: str, shape: str, smoke: bool, precision: str) -> ConfigDict:
    config = jmer.get_config(EXPERIMENTS[model, shape] + (":tiny" if smoke else ""))
    if smoke:
        # Some emotions do not occur in so few utterances.
        config.loss.class_weights = "none"
    if precision == BFLOAT16:
        if "dtype" not in config.model:
            raise UserError(f"{model} computes in float32 alone: choose other --models, or another --precision")
        config.model.dtype = BFLOAT16
    return config


def _shape(name: str, smoke: bool) -> Shape:
    return (SMOKE_SHAPES if smoke else SHAPES)[name]


def _widths(smoke: bool) -> Mapping[str, int]:
    return SMOKE_WIDTHS if smoke else WIDTHS
