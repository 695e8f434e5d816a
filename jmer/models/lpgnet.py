"""LPGNet: lightweight parallel interaction attention and dual-gated fusion of text and audio (2025).

Flow of one batch, under the paper's names: features → modality-wise local encoding by 1-D convolution → four-way
parallel attention → two-stage residual enhancement (these three are the lightweight parallel interaction attention,
LPIA) → unimodal gates → [frames: one vector per utterance] → multimodal gate → emotion classifier, self-distilled.

The published text names these parts and lacks their equations. Where it leaves a choice there is an option, whose first
value is the literal interpretation; gates, heads and loss are those of SDT (Ma et al., 2023), on which LPGNet builds.
No speaker information is used.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.batch import Batch
from jmer.layers.convolution import SegmentConvolution
from jmer.layers.dropout import ConversationDropout
from jmer.layers.enhancement import COMPRESS_NORMS, COMPRESSIONS, FFN_INPUTS, ResidualEnhancement
from jmer.layers.gates import GatedReduction, MultimodalGate
from jmer.layers.initializers import SCHEMES, dense
from jmer.layers.parallel_attention import PROJECTIONS, FourWayParallelAttention, Path
from jmer.layers.pooling import AttentionPool, mean_pool
from jmer.layers.positions import sinusoidal_positions
from jmer.layers.stacking import stacked, unstacked
from jmer.losses.reduction import zero_unless
from jmer.modalities import MODALITIES
from jmer.models.checks import check_at_least_one, check_choice, check_heads, check_modalities, check_rates
from jmer.models.encoders import Encoders, encoders_of, expose_encodings
from jmer.models.self_distillation import (
    LOSS_WEIGHTS,
    SelfDistillationHeads,
    SelfDistillationLoss,
    SelfDistilledOutput,
    gate_means,
)
from jmer.models.spec import ModelSpec, Summaries
from jmer.segments import Segments, one_per_row

# Modality -> its array.
Arrays = dict[str, jax.Array]


class LPGNet(nn.Module):
    """The network of LPGNet.

    A sequence is a conversation and its positions are utterances, or with `mode` `frame` a sequence is an utterance and
    its positions are word pieces and audio frames. An utterance without a modality is padding in that modality.

    Attributes:
      num_classes: `C`.
      modalities: two in the paper; one has only its intra path, three have nine paths in place of four.
      mode: `utterance`, or `frame` for a batch with frames.
      d: width of every representation.
      kernel_size: of the convolution; odd. With 1, and without positions, order does not matter.
      positional: `none`, or `sinusoidal` positions after the convolution, then dropout.
      num_heads: attention heads.
      attn_out_proj: True = a linear layer after each path's attention.
      attention_dropout_rate: rate, on attention weights.
      qkv: query, key and value projections `per_path`, `shared` by the paths of a modality, or `identity` (none).
      global_compression: source of the global context z in `ResidualEnhancement`: `pooled` (the mean context of a
        conversation), `per_position`, `query_mean` (the context of its mean query), `pooled_plus_context` or `channel`.
      compress_norm: normalization in the global compression, `batch` or `layer`.
      use_ffn: False = residual enhancement without its feed-forward part.
      ffn_input: input of that feed-forward part, `residual` (after the global context is added) or `parallel` (before).
      ffn_pre_ln: False = that feed-forward part has no LayerNorm.
      ffn_mult: inner width of the feed-forward parts as a multiple of `d`.
      blocks: number of LPIA blocks; a further block's input is, for each modality, the mean of the paths that end on
        it, which keeps the scale that a sum would multiply.
      use_intra: False = without the paths within a modality.
      use_inter: False = without the paths between modalities.
      use_unimodal_gate: False = the paths are reduced as they are.
      use_multimodal_gate: False = the modalities are fused by `ungated_fusion`.
      ungated_fusion: `concat` (a linear layer over the concatenation) or `mean` (over the modalities that are there).
      frame_pool: an utterance's frames become one vector by their `mean` or by learnt `attention`.
      dropout_rate: rate in the feed-forward parts, after positions and in the unimodal heads.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`.
    """

    num_classes: int
    modalities: tuple[str, ...] = ("text", "audio")
    mode: str = "utterance"
    d: int = 256
    kernel_size: int = 3
    positional: str = "none"
    num_heads: int = 1
    attn_out_proj: bool = False
    attention_dropout_rate: float = 0.0
    qkv: str = "per_path"
    global_compression: str = "pooled"
    compress_norm: str = "batch"
    use_ffn: bool = True
    ffn_input: str = "residual"
    ffn_pre_ln: bool = True
    ffn_mult: int = 2
    blocks: int = 1
    use_intra: bool = True
    use_inter: bool = True
    use_unimodal_gate: bool = True
    use_multimodal_gate: bool = True
    ungated_fusion: str = "concat"
    frame_pool: str = "mean"
    dropout_rate: float = 0.5
    initialization: str = "torch_uniform"

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities in one order, however the configuration lists them."""
        return tuple(m for m in MODALITIES if m in self.modalities)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The (source, target) pairs of attention, those within a modality first."""
        intra = [(m, m) for m in self.names if self.use_intra]
        inter = [(source, m) for m in self.names for source in self.names if source != m and self.use_inter]
        return (*intra, *inter)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False, axis_name: str | None = None) -> SelfDistilledOutput:
        """Predicts every utterance's emotion.

        Args:
          batch: see `jmer.batch.Batch`; features of other modalities than the model's are ignored.
          train: whether dropout is on, which needs the random stream `dropout`, and batch statistics are this batch's,
            which needs `batch_stats` to be mutable.
          axis_name: mapped axis whose devices hold the rest of the batch; None = unmapped.

        Raises:
          ValueError: for an option that has no such value, or a batch that does not fit `mode`.
        """
        self.check()
        features, masks, segments, row_ids = self._sequences(batch)
        x, masks = self._encode_locally(features, masks, segments, train, row_ids)
        if self.mode == "utterance":
            expose_encodings(self, x)
        enhanced: dict[Path, jax.Array] = {}
        for block in range(self.blocks):
            if block:
                x = {m: jnp.stack([enhanced[path] for path in self.paths if path[1] == m]).mean(0) for m in x}
            enhanced = self._interact(x, masks, segments, train, row_ids, axis_name, block)
        gate = "learned" if self.use_unimodal_gate else "none"
        reduction = GatedReduction(self.paths, gate, name="unimodal_fusion", **SCHEMES[self.initialization])
        reduced = reduction(enhanced)
        reduced = {m: zero_unless(masks[m], reduced[m]) for m in self.names}
        if self.mode == "frame":
            reduced = {m: x.reshape(*batch.mask.shape, self.d) for m, x in self._pool(reduced, masks).items()}
            masks = {m: mask.any(-1).reshape(batch.mask.shape) for m, mask in masks.items()}
        fused, gates = self._fuse(reduced, masks)
        heads = SelfDistillationHeads(
            self.num_classes, self.names, self.dropout_rate, self.initialization, name="heads"
        )
        logits, unimodal_logits = heads(fused, reduced, train=train, row_ids=batch.row_ids)
        return SelfDistilledOutput(logits, unimodal_logits, reduced, fused, gates)

    def check(self) -> None:
        """Raises ValueError if an option has no such value or options do not fit together."""
        check_modalities(self.modalities)
        check_choice("mode", self.mode, ("utterance", "frame"))
        check_choice("positional", self.positional, ("none", "sinusoidal"))
        check_choice("qkv", self.qkv, PROJECTIONS)
        check_choice("global_compression", self.global_compression, COMPRESSIONS)
        check_choice("compress_norm", self.compress_norm, COMPRESS_NORMS)
        check_choice("ffn_input", self.ffn_input, FFN_INPUTS)
        check_choice("ungated_fusion", self.ungated_fusion, ("concat", "mean"))
        check_choice("frame_pool", self.frame_pool, ("mean", "attention"))
        check_choice("initialization", self.initialization, SCHEMES)
        check_at_least_one(self, "d", "kernel_size", "num_heads", "ffn_mult", "blocks")
        if not self.paths:
            raise ValueError(
                f"no attention path is left: modalities {', '.join(self.modalities)}, use_intra {self.use_intra}, "
                f"use_inter {self.use_inter}"
            )
        if self.global_compression == "channel" and self.compress_norm == "layer":
            raise ValueError("global_compression channel needs compress_norm batch: layer would make its one number 0")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, not {self.kernel_size}")
        check_heads(self.num_heads, self.d, "d")
        check_rates(self, "dropout_rate", "attention_dropout_rate")

    def _sequences(self, batch: Batch) -> tuple[Arrays, Arrays, Segments, jax.Array | None]:
        """Returns the sequences of attention: features `[S, L_m, D_m]`, masks `[S, L_m]`, segments and row ids `[S]`.

        A row of sequences has the length of the longest modality; only frames differ in length between modalities.
        """
        if (self.mode == "frame") != (batch.frames is not None):
            there = "one vector per utterance" if batch.frames is None else "frames"
            raise ValueError(f"mode is {self.mode}, but the batch has {there}: choose the other of utterance and frame")
        masks = {m: batch.available[m] & batch.mask for m in self.names}
        features = {m: batch.features[m] for m in self.names}
        frames = batch.frames
        if frames is None:
            return features, masks, batch.segments, batch.row_ids

        def by_utterance(x: jax.Array) -> jax.Array:
            return x.reshape(-1, *x.shape[2:])

        masks = {m: by_utterance(frames[m] & masks[m][..., None]) for m in self.names}
        row_ids = batch.row_ids
        if row_ids is not None:
            length = batch.mask.shape[1]
            row_ids = by_utterance(row_ids[:, None] * length + jnp.arange(length)[None])
        segments = one_per_row(batch.mask.size, max(mask.shape[1] for mask in masks.values()))
        return {m: by_utterance(x) for m, x in features.items()}, masks, segments, row_ids

    def _encode_locally(
        self, features: Arrays, masks: Arrays, segments: Segments, train: bool, row_ids: jax.Array | None
    ) -> tuple[Arrays, Arrays]:
        """LPIA, step 1: X_m = Conv1D_m(U_m), and no more where positions are `none`.

        Returns features `[S, L, d]` and masks `[S, L]`, padded to the longest modality so that paths can be stacked;
        the layers that follow leave padding out.
        """
        longest = segments.ids.shape[1]
        encoded = []
        for m, mask in masks.items():
            # Masked values are zero before the convolution, which would carry them over to their neighbours.
            kernel_init = SCHEMES[self.initialization]["kernel_init"]
            convolution = SegmentConvolution(self.d, self.kernel_size, kernel_init, name=f"conv_{m}")
            # The frames of an utterance have a row to themselves, of another length in each modality.
            packed = None if self.mode == "frame" else segments
            x = convolution(zero_unless(mask, features[m]), segments=packed)
            encoded.append(jnp.pad(x, ((0, 0), (0, longest - mask.shape[1]), (0, 0))))
        masks = {m: jnp.pad(mask, ((0, 0), (0, longest - mask.shape[1]))) for m, mask in masks.items()}
        x = jnp.stack(encoded, axis=1)
        if self.positional == "sinusoidal":
            x = x + sinusoidal_positions(longest, self.d, segments=segments)[:, None].astype(x.dtype)
            x = ConversationDropout(self.dropout_rate)(x, train=train, row_ids=row_ids)
        return dict(zip(masks, unstacked(x, axis=1), strict=True)), masks

    def _interact(
        self,
        x: Arrays,
        masks: Arrays,
        segments: Segments,
        train: bool,
        row_ids: jax.Array | None,
        axis_name: str | None,
        block: int,
    ) -> dict[Path, jax.Array]:
        """LPIA, steps 2-4: C = softmax(Q Kᵀ / √d) V on every path, and what it adds to the query: `[S, L, d]` each."""
        attention = FourWayParallelAttention(
            self.num_heads,
            self.qkv,
            output_projection=self.attn_out_proj,
            dropout_rate=self.attention_dropout_rate,
            paths=self.paths,
            pool_queries=self.global_compression == "query_mean",
            name=f"attention_{block}",
            **SCHEMES[self.initialization],
        )
        context = attention(x, masks, segments=segments, train=train, row_ids=row_ids)
        enhancement = ResidualEnhancement(
            self.ffn_mult * self.d,
            self.global_compression,
            self.compress_norm,
            self.use_ffn,
            self.ffn_input,
            self.ffn_pre_ln,
            self.dropout_rate,
            name=f"enhancement_{block}",
            **SCHEMES[self.initialization],
        )
        enhanced = stacked(enhancement)(
            jnp.stack([x[target] for _, target in self.paths]),
            jnp.stack([context[path] for path in self.paths]),
            jnp.stack([masks[target] for _, target in self.paths]),
            jnp.stack([masks[source] for source, _ in self.paths]),
            segments=segments,
            train=train,
            row_ids=row_ids,
            axis_name=axis_name,
        )
        return dict(zip(self.paths, unstacked(enhanced), strict=True))

    def _pool(self, x: Arrays, masks: Arrays) -> Arrays:
        """Makes one vector `[S, d]` of each modality's frames."""
        if self.frame_pool == "mean":
            return {m: mean_pool(x[m], masks[m]) for m in self.names}
        pool = stacked(AttentionPool(SCHEMES[self.initialization]["kernel_init"], name="frame_pool"))
        pooled = pool(jnp.stack([x[m] for m in self.names]), jnp.stack([masks[m] for m in self.names]))
        return dict(zip(self.names, unstacked(pooled), strict=True))

    def _fuse(self, x: Arrays, available: Arrays) -> tuple[jax.Array, Arrays]:
        """Multimodal gated fusion, or its replacement. Returns F `[B, T, d]` and the gates, if there are any."""
        if len(x) == 1:
            return x[self.names[0]], {}
        if self.use_multimodal_gate:
            gate = MultimodalGate(SCHEMES[self.initialization]["kernel_init"], name="multimodal_gate")
            return gate(x, available)
        if self.ungated_fusion == "mean":
            stack = jnp.stack([x[m] for m in self.names], axis=-2)
            return mean_pool(stack, jnp.stack([available[m] for m in self.names], axis=-1)), {}
        concatenated = jnp.concatenate([x[m] for m in self.names], axis=-1)
        layer = dense(self.d, concatenated.shape[-1], name="concatenation", **SCHEMES[self.initialization])
        return layer(concatenated), {}


def _encoders(module: LPGNet) -> Encoders | None:
    """Frames are not utterances, whose emotions could be told from their encodings."""
    return encoders_of(module, "conv_{}/", kernel="heads/fused/kernel") if module.mode == "utterance" else None


SPEC = ModelSpec(
    name="lpgnet",
    module=LPGNet,
    loss=SelfDistillationLoss,
    loss_weights=LOSS_WEIGHTS,
    packing=True,
    frames_when={"mode": "frame"},
    handles_missing=True,
    bfloat16=True,
    summaries=Summaries(fusion_weights=gate_means),
    encoders=_encoders,
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {"model.d": 16, "training.epochs": 2},
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion.
        "plain_features": {
            "optimizer.learning_rate": 3e-4,
            "training.batch_size": 8,
            "training.epochs": 20,
        },
        # Utterances as sequences of frames, in a corpus that has them.
        "frame": {"model.mode": "frame", "data.path": "synthetic-iemocap4-frames"},
        # Ablations of the paper: modalities, components.
        "text": {"model.modalities": ("text",)},
        "audio": {"model.modalities": ("audio",)},
        "without_inter": {"model.use_inter": False},
        "without_intra": {"model.use_intra": False},
        "without_ffn": {"model.use_ffn": False},
        "without_dual_gates": {"model.use_unimodal_gate": False, "model.use_multimodal_gate": False},
        # The paper's grid of loss weights γ1 (task), γ2 (hard labels), γ3 (soft labels); the default is 1.5, 1, 0.3.
        "gammas_1_1_1": {"loss.gamma_task": 1.0, "loss.gamma_soft": 1.0},
        "gammas_1_0_1": {"loss.gamma_task": 1.0, "loss.gamma_hard": 0.0, "loss.gamma_soft": 1.0},
        "gammas_1_1_0": {"loss.gamma_task": 1.0, "loss.gamma_soft": 0.0},
        "gammas_1.5_1_0": {"loss.gamma_soft": 0.0},
    },
)
