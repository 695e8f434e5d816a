"""SDT: a transformer with self-distillation, the parent of LPGNet (Ma et al., 2023, arXiv:2310.20494).

Flow of one batch: features → linear map to one width, positions and speakers added → for each ordered pair of
modalities attention and a feed-forward part → unimodal gates → one vector per modality → multimodal gate → heads. The
loss is `SelfDistillationLoss`, its three weights 1.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.batch import Batch
from jmer.layers.dropout import ConversationDropout
from jmer.layers.feed_forward import PositionwiseFeedForward
from jmer.layers.gates import UNIMODAL_GATES, GatedReduction, MultimodalGate
from jmer.layers.initializers import SCHEMES, dense
from jmer.layers.parallel_attention import FourWayParallelAttention, Path
from jmer.layers.positions import sinusoidal_positions
from jmer.layers.stacking import stacked, unstacked
from jmer.losses.reduction import zero_unless
from jmer.modalities import MODALITIES
from jmer.models.checks import (
    check_at_least_one,
    check_choice,
    check_heads,
    check_modalities,
    check_no_frames,
    check_rates,
)
from jmer.models.encoders import encoders_of, expose_encodings
from jmer.models.self_distillation import (
    LOSS_WEIGHTS,
    SelfDistillationHeads,
    SelfDistillationLoss,
    SelfDistilledOutput,
    gate_means,
)
from jmer.models.spec import ModelSpec, Summaries
from jmer.models.variants import MODALITY_SUBSETS


class SDT(nn.Module):
    """The network of SDT, which attends to the whole conversation, later utterances included.

    Where its authors' code draws the dropout of a modality's input anew for each encoder layer, here it is drawn once.
    Two parameters of their code that do nothing are left out: the layer norm before the attention, which the only layer
    skips, and the embedding of padding, which stays zero.

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual. With one there is no
        multimodal gate, and no head but the fused one.
      d: width of every representation, the feed-forward parts' inner one included.
      num_heads: attention heads.
      positional: position encodings: `sinusoidal` or `none`.
      speaker_embedding: whether to add an embedding of the speaker.
      speakers: rows of the speakers' table: 2 on IEMOCAP, 9 on MELD. Speakers are numbered within their conversation by
        first appearance (SDT's data has ids of its own); further ones share the last row.
      use_intra: False = without the paths from a modality to itself.
      use_inter: False = without the paths from one modality to another.
      unimodal_gate: `learned`, `identity` (as on MELD) or `none`, see `GatedReduction`.
      dropout_rate: rate on the inputs, in attention and feed-forward parts and in the unimodal heads.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`; the speakers' table is drawn from
        N(0, 1).
    """

    num_classes: int
    modalities: tuple[str, ...] = MODALITIES
    d: int = 1024
    num_heads: int = 8
    positional: str = "sinusoidal"
    speaker_embedding: bool = True
    speakers: int = 2
    use_intra: bool = True
    use_inter: bool = True
    unimodal_gate: str = "learned"
    dropout_rate: float = 0.5
    initialization: str = "torch_uniform"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The (source, target) pairs; those with one target are neighbours, its own first."""
        names = [m for m in MODALITIES if m in self.modalities]
        intra = {target: [(target, target)] if self.use_intra else [] for target in names}
        inter = {target: [(s, target) for s in names if s != target and self.use_inter] for target in names}
        return tuple(path for target in names for path in intra[target] + inter[target])

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> SelfDistilledOutput:
        """Predicts every utterance's emotion.

        Args:
          batch: see `jmer.batch.Batch`; features of other modalities than the model's are ignored.
          train: whether dropout is on; needs the random stream `dropout` then.

        Raises:
          ValueError: for an option that has no such value, or a batch with frames.
        """
        self.check()
        check_no_frames(batch, "SDT")
        present = {m: batch.available[m] & batch.mask for m in self.modalities}
        streams = self._embed(batch, present, train)
        expose_encodings(self, streams)
        contexts = self._encode(streams, present, batch, train)
        reduction = GatedReduction(self.paths, self.unimodal_gate, name="reduction", **SCHEMES[self.initialization])
        reduced = reduction(contexts)
        features = {m: zero_unless(present[m], x) for m, x in reduced.items()}
        if len(features) == 1:
            (fused,) = features.values()
            gates: dict[str, jax.Array] = {}
        else:
            gate = MultimodalGate(SCHEMES[self.initialization]["kernel_init"], name="fusion")
            fused, gates = gate(features, present)
        heads = SelfDistillationHeads(
            self.num_classes, tuple(features), self.dropout_rate, self.initialization, name="heads"
        )
        logits, unimodal_logits = heads(fused, features, train=train, row_ids=batch.row_ids)
        return SelfDistilledOutput(logits, unimodal_logits, features, fused, gates)

    def check(self) -> None:
        """Raises ValueError if an option has no such value or options do not fit together."""
        check_modalities(self.modalities)
        check_choice("positional", self.positional, ("sinusoidal", "none"))
        check_choice("unimodal_gate", self.unimodal_gate, UNIMODAL_GATES)
        check_choice("initialization", self.initialization, SCHEMES)
        check_at_least_one(self, "d", "num_heads", "speakers")
        check_heads(self.num_heads, self.d, "d")
        check_rates(self, "dropout_rate")
        if not self.paths:
            raise ValueError(
                f"no path is left for attention within {', '.join(self.modalities)}: set use_intra to True"
            )

    def _embed(self, batch: Batch, present: Mapping[str, jax.Array], train: bool) -> dict[str, jax.Array]:
        """Returns each modality's stream, `[B, T, d]`; values where the modality is absent do not matter."""

        def to_width(modality: str) -> jax.Array:
            x = zero_unless(present[modality], batch.features[modality])
            # A convolution of kernel 1.
            options = SCHEMES[self.initialization]
            return dense(self.d, x.shape[-1], use_bias=False, name=f"input_{modality}", **options)(x)

        names = [m for m in MODALITIES if m in self.modalities]
        x = jnp.stack([to_width(m) for m in names], axis=1)
        if self.positional == "sinusoidal":
            x = x + sinusoidal_positions(x.shape[2], self.d, segments=batch.segments)[:, None].astype(x.dtype)
        if self.speaker_embedding:
            table = nn.Embed(self.speakers, self.d, embedding_init=nn.initializers.normal(1.0), name="speakers")
            x = x + table(jnp.clip(batch.speakers, 0, self.speakers - 1))[:, None]
        x = ConversationDropout(self.dropout_rate)(x, train=train, row_ids=batch.row_ids)
        return dict(zip(names, unstacked(x, axis=1), strict=True))

    def _encode(
        self, streams: Mapping[str, jax.Array], present: Mapping[str, jax.Array], batch: Batch, train: bool
    ) -> dict[Path, jax.Array]:
        """One encoder layer for each path: attention from target to source, then a feed-forward part per position."""
        attention = FourWayParallelAttention(
            self.num_heads,
            qkv_bias=True,
            output_projection=True,
            dropout_rate=self.dropout_rate,
            paths=self.paths,
            name="attention",
            **SCHEMES[self.initialization],
        )
        contexts = attention(streams, present, segments=batch.segments, train=train, row_ids=batch.row_ids)
        context = jnp.stack([contexts[path] for path in self.paths], axis=1)
        queries = jnp.stack([streams[target] for _, target in self.paths], axis=1)
        x = ConversationDropout(self.dropout_rate)(context, train=train, row_ids=batch.row_ids) + queries
        feed_forward = PositionwiseFeedForward(
            self.d, self.dropout_rate, name="feed_forward", **SCHEMES[self.initialization]
        )
        x = jnp.moveaxis(x, 1, 0) + stacked(feed_forward, in_axes=1)(x, train=train, row_ids=batch.row_ids)
        return dict(zip(self.paths, unstacked(x), strict=True))


SPEC = ModelSpec(
    name="sdt",
    module=SDT,
    loss=SelfDistillationLoss,
    defaults={"model.modalities": (), "loss.gamma_task": 1.0, "loss.gamma_hard": 1.0, "loss.gamma_soft": 1.0},
    loss_weights=LOSS_WEIGHTS,
    packing=True,
    handles_missing=True,
    bfloat16=True,
    summaries=Summaries(fusion_weights=gate_means),
    encoders=lambda module: encoders_of(module, "input_{}/", kernel="heads/fused/kernel"),
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {"model.d": 16, "model.num_heads": 2, "training.epochs": 2},
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion; a fourteenth of the
        # parameters.
        "plain_features": {
            "model.d": 256,
            "optimizer.learning_rate": 1e-3,
            "training.batch_size": 8,
            "training.epochs": 30,
        },
        **MODALITY_SUBSETS,
        "without_positions": {"model.positional": "none"},
        "without_speakers": {"model.speaker_embedding": False},
        "without_intra": {"model.use_intra": False},
        "without_inter": {"model.use_inter": False},
        "without_unimodal_gates": {"model.unimodal_gate": "none"},
        "without_hard_labels": {"loss.gamma_hard": 0.0},
        "without_soft_labels": {"loss.gamma_soft": 0.0},
        "without_distillation": {"loss.gamma_hard": 0.0, "loss.gamma_soft": 0.0},
    },
)
