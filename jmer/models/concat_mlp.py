"""Concatenation and two linear layers, without context and speakers: the floor that other models should be above.

Flow of one batch: features → a linear layer for each modality → side by side → a linear layer for all → emotion. The
loss is the cross-entropy. Simplified fusion of this kind is that of arXiv:2505.04642, whose widths are not known.
"""

import jax.numpy as jnp
from flax import linen as nn

from jmer.batch import Batch
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import SCHEMES, dense
from jmer.modalities import MODALITIES
from jmer.models.checks import check_at_least_one, check_choice, check_modalities, check_no_frames, check_rates
from jmer.models.classification import ClassifierOutput, CrossEntropyLoss
from jmer.models.encoders import encoders_of, expose_encodings
from jmer.models.inputs import separate
from jmer.models.spec import ModelSpec
from jmer.models.variants import MODALITY_SUBSETS


class ConcatMLP(nn.Module):
    r"""A multilayer perceptron on each utterance by itself.

    .. math::
        h^m = \mathrm{Drop}(\mathrm{ReLU}(x^m W_m + b_m)), \quad
        f = \mathrm{Drop}(\mathrm{ReLU}([h^t \,\|\, h^a \,\|\, h^v] W_f + b_f)), \quad
        \mathrm{logits} = f W_c + b_c

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual; concatenated in that order,
        with zero features where an utterance lacks one.
      d_h: width of the layer of each modality.
      d_f: width of the layer that joins them.
      dropout_rate: rate after both layers.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`.
    """

    num_classes: int
    modalities: tuple[str, ...] = MODALITIES
    d_h: int = 256
    d_f: int = 256
    dropout_rate: float = 0.3
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> ClassifierOutput:
        """Predicts every utterance's emotion from it alone.

        Args:
          batch: see `jmer.batch.Batch`; features of other modalities than the model's are ignored.
          train: whether dropout is on; needs the random stream `dropout` then.

        Raises:
          ValueError: for an option that has no such value, or a batch with frames.
        """
        self.check()
        check_no_frames(batch, "the concat MLP")
        options = SCHEMES[self.initialization]
        encoded = {
            m: nn.relu(dense(self.d_h, x.shape[-1], name=f"input_{m}", **options)(x))
            for m, x in separate(batch, self.modalities).items()
        }
        expose_encodings(self, encoded)
        drop = ConversationDropout(self.dropout_rate, name="dropout")
        joined = drop(jnp.concatenate(list(encoded.values()), axis=-1), train=train, row_ids=batch.row_ids)
        hidden = nn.relu(dense(self.d_f, joined.shape[-1], name="hidden", **options)(joined))
        hidden = drop(hidden, train=train, row_ids=batch.row_ids)
        return ClassifierOutput(dense(self.num_classes, self.d_f, name="classifier", **options)(hidden))

    def check(self) -> None:
        """Raises ValueError if an option has no such value."""
        check_modalities(self.modalities)
        check_choice("initialization", self.initialization, SCHEMES)
        check_at_least_one(self, "d_h", "d_f")
        check_rates(self, "dropout_rate")


SPEC = ModelSpec(
    name="concat_mlp",
    module=ConcatMLP,
    loss=CrossEntropyLoss,
    defaults={"model.modalities": ()},
    packing=True,
    handles_missing=True,
    bfloat16=True,
    encoders=lambda module: encoders_of(module, "input_{}/"),
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {"model.d_h": 16, "model.d_f": 16, "training.epochs": 2},
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion.
        "plain_features": {
            "model.d_h": 128,
            "model.d_f": 128,
            "model.dropout_rate": 0.5,
            "optimizer.learning_rate": 1e-3,
            "training.batch_size": 8,
            "training.epochs": 20,
        },
        **MODALITY_SUBSETS,
    },
)
