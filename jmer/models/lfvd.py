"""LFVD: language-focused augmented transformer with variational distillation fusion (Zhu and Jiang, 2025).

Flow of one batch, with the paper's equations: features (1) → Bi-GRU (2) → speaker graph (3) → language-focused
augmented transformer (4-8) → atmosphere (9) → Gaussians (12) → fusion weights (14-16) → fusion (17) → classifier (18).
Losses: cross-entropy (19), dual contrast (10, 11, 20), distillation (13), their sum (21).
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jmer.batch import Batch
from jmer.layers.dag import KERNELS, DAGEncoder, predecessor_graph
from jmer.layers.dropout import ConversationDropout
from jmer.layers.fusion import WEIGHTINGS, kl_fusion_weights, kl_weighted_fusion
from jmer.layers.gaussian import Gaussian
from jmer.layers.initializers import SCHEMES, dense
from jmer.layers.language_guided import ConversationAtmosphere, LanguageGuidedBlock
from jmer.layers.precision import at_least_float32
from jmer.layers.recurrent import ModalityBiGRUs
from jmer.layers.stacking import stacked, unstacked
from jmer.layers.variational import PARAMETRIZATIONS, GaussianHead, sample
from jmer.losses.contrastive import cross_modal_contrastive, supervised_contrastive
from jmer.losses.distillation import variational_distillation
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
from jmer.models.classification import classification_term
from jmer.models.encoders import Encoders, encoders_of, expose_encodings
from jmer.models.spec import ModelSpec, Summaries, is_off
from jmer.models.variants import MODALITY_SUBSETS


@struct.dataclass
class LFVDOutput:
    """The output of LFVD for a batch. Mappings are keyed by modality.

    Attributes:
      logits: `[B, T, C]`.
      encoded: `[B, T, D]` each, X of Eq. 3.
      atmosphere: t of Eq. 9 for each of a row's conversations, `[B, K, D]`, or of a causal model for each utterance,
        `[B, T, D]`; None without it.
      features: `[B, T, D]` each, X + t, zero where the utterance lacks the modality.
      posteriors: Gaussians of `[B, T, d_z]`, Eq. 12.
      samples: `[B, T, d_z]` each, drawn from the posteriors in training if an option needs them; else None.
      reconstructions: `[B, T, D]` each, decoded from the samples (or, in evaluation, means); None without a decoder.
      weights: `[B, T]` each, 1 for the dominant modality, w of Eq. 16 for the others, 0 where unavailable; empty for a
        fusion without weights.
      fused: `[B, T, D]`, x^f of Eq. 17.
      attention: name of a block -> `[B, H, queries, keys]`, if asked for.
      atmosphere_attention: `[B, T]`, the attention that the atmosphere token of a conversation pays to each of its
        utterances, mean over heads; of a causal model, that of the last utterance's token, which sees all. None without
        an atmosphere, or if `attention` was not asked for.
    """

    logits: jax.Array
    encoded: Mapping[str, jax.Array]
    atmosphere: jax.Array | None
    features: Mapping[str, jax.Array]
    posteriors: Mapping[str, Gaussian]
    samples: Mapping[str, jax.Array] | None
    reconstructions: Mapping[str, jax.Array] | None
    weights: Mapping[str, jax.Array]
    fused: jax.Array
    attention: Mapping[str, jax.Array] | None
    atmosphere_attention: jax.Array | None = None


def effective_dominant(dominant: str, modalities: Collection[str]) -> str:
    """Returns `dominant` if it is among `modalities`, else the first of text, audio, visual that is."""
    return dominant if dominant in modalities else next(m for m in MODALITIES if m in modalities)


class LFVD(nn.Module):
    """The network of LFVD; every option defaults to the literal interpretation of the paper.

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual.
      dominant: modality that guides attention, is the teacher and has weight 1; where it is missing, the first of text,
        audio, visual that is present.
      d_r: width of the Bi-GRU's output, both directions together.
      d_h: width inside the graph network.
      d_x: width of all representations after the graph network.
      d_z: dimensions of the Gaussians.
      bidirectional: False = a forward GRU only.
      causal: True = no information from later utterances: forward GRU, causal attention, an atmosphere per utterance.
      dag_layers: layers of the graph network: 4 on IEMOCAP, 2 on MELD.
      dag_output: output of the graph network: `concat_proj` (a linear layer over its input and the states of all its
        layers) or `last` (the last layer's states, with `d_h` = `d_x`).
      dag_shared: True = the modalities share one graph network.
      dag_kernel: what a TPU runs for the graph network, `auto` or `pallas`, see `jmer.layers.dag.DAGLayer`.
      omega: ω of the graph, the number of the speaker's last utterances that it links back to.
      num_heads: attention heads.
      qkv_sharing: `per_block` (own projections in each block) or `per_modality` (Eq. 4's notation: the blocks share the
        query projection of the dominant modality; each has another source, hence its own keys and values).
      qkv_bias: whether query, key and value projections have biases.
      cross_residual: what Eq. 6 adds to the attention's output: `source` (as printed) or `query`.
      ffn_mult: inner width of the feed-forward parts as a multiple of `d_x`.
      use_atmosphere: False = without t (the ablation "w/o CEAR").
      language_stream: the dominant modality's features after augmentation: `encoder` (X, as printed), `lfa` (the output
        of the l→l block, Eq. 7) or `fused` (the utterances after Eq. 9's block).
      sigma_param: parametrization of the Gaussians' scale: `softplus_std`, `log_std` or `log_var`.
      fusion: `cmvd` (Eq. 17), `add` (all weights 1), `cat` (linear layer over the concatenation) or `gate` (sum under
        sigmoid gates computed from all modalities).
      fusion_input: the features that are fused: `x` (Eq. 17), `mu` (the Gaussians' means) or `z` (their samples, and
        means in evaluation); `mu` and `z` need `d_z` = `d_x`.
      weight_fn: fusion weight as a function of the divergence from the dominant modality: `sigmoid` (as printed),
        `two_sigmoid_minus_one` (stretched to [0, 1)), `one_minus` (1 - sigmoid) or `ones`.
      weight_kl_reduction: divergence over the Gaussians' dimensions: their `sum`, or their `mean`, which saturates the
        weights less.
      weight_stop_grad: True = no gradient through the weights.
      reconstruct: True = a linear decoder per modality from the Gaussians back to X + t.
      draw_samples: True = draw samples in training even if the fusion does not use them.
      dropout_rate: rate after the GRU, in attention and feed-forward parts and before the classifier.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`.
    """

    num_classes: int
    modalities: tuple[str, ...] = MODALITIES
    dominant: str = "text"
    d_r: int = 300
    d_h: int = 300
    d_x: int = 300
    d_z: int = 64
    bidirectional: bool = True
    causal: bool = False
    dag_layers: int = 2
    dag_output: str = "concat_proj"
    dag_shared: bool = False
    dag_kernel: str = "auto"
    omega: int = 1
    num_heads: int = 6
    qkv_sharing: str = "per_block"
    qkv_bias: bool = False
    cross_residual: str = "source"
    ffn_mult: int = 4
    use_atmosphere: bool = True
    language_stream: str = "encoder"
    sigma_param: str = "softplus_std"
    fusion: str = "cmvd"
    fusion_input: str = "x"
    weight_fn: str = "sigmoid"
    weight_kl_reduction: str = "sum"
    weight_stop_grad: bool = False
    reconstruct: bool = False
    draw_samples: bool = False
    dropout_rate: float = 0.1
    initialization: str = "torch_uniform"

    @property
    def effective_dominant(self) -> str:
        """The dominant modality that is really there."""
        return effective_dominant(self.dominant, self.modalities)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False, attention: bool = False) -> LFVDOutput:
        """Predicts every utterance's emotion.

        Args:
          batch: see `jmer.batch.Batch`; features of other modalities than the model's are ignored.
          train: whether dropout is on and samples are drawn; needs the random streams `dropout` and, for samples,
            `latent`.
          attention: whether the output carries attention maps.

        Raises:
          ValueError: for an option that has no such value, widths that do not fit together, or a batch with frames.
        """
        self.check()
        check_no_frames(batch, "LFVD")
        available = {m: batch.available[m] & batch.mask for m in self.modalities}
        encoded = self._encode(batch, available, train)
        expose_encodings(self, encoded)
        streams, atmosphere, maps = self._augment(batch, encoded, available, train)
        features = {m: zero_unless(available[m], x) for m, x in streams.items()}
        posteriors = self._posteriors(features)
        samples = self._sample(posteriors, batch) if train and (self.draw_samples or self.fusion_input == "z") else None
        latent = samples or {m: posterior.mean for m, posterior in posteriors.items()}
        reconstructions = None
        if self.reconstruct:
            reconstructions = {m: self._dense(self.d_x, self.d_z, f"decoder_{m}")(z) for m, z in latent.items()}
        inputs = {"x": features, "mu": {m: q.mean for m, q in posteriors.items()}, "z": latent}[self.fusion_input]
        inputs = {m: zero_unless(available[m], x) for m, x in inputs.items()}
        fused, weights = self._fuse(inputs, posteriors, available)
        dropped = ConversationDropout(self.dropout_rate)(fused, train=train, row_ids=batch.row_ids)
        logits = self._dense(self.num_classes, self.d_x, "classifier")(dropped)
        return LFVDOutput(
            logits=logits,
            encoded=encoded,
            atmosphere=atmosphere,
            features=features,
            posteriors=posteriors,
            samples=samples,
            reconstructions=reconstructions,
            weights=weights,
            fused=fused,
            attention=maps if attention else None,
            atmosphere_attention=self._token_attention(maps, batch) if attention and self.use_atmosphere else None,
        )

    def check(self) -> None:
        """Raises ValueError if an option has no such value or widths do not fit together."""
        check_modalities(self.modalities)
        check_choice("dominant modality", self.dominant, MODALITIES)
        check_choice("qkv_sharing", self.qkv_sharing, ("per_block", "per_modality"))
        check_choice("cross_residual", self.cross_residual, ("source", "query"))
        check_choice("language_stream", self.language_stream, ("encoder", "lfa", "fused"))
        check_choice("fusion", self.fusion, ("cmvd", "add", "cat", "gate"))
        check_choice("fusion_input", self.fusion_input, ("x", "mu", "z"))
        check_choice("sigma_param", self.sigma_param, PARAMETRIZATIONS)
        check_choice("weight_fn", self.weight_fn, WEIGHTINGS)
        check_choice("weight_kl_reduction", self.weight_kl_reduction, ("sum", "mean"))
        check_choice("dag_output", self.dag_output, ("concat_proj", "last"))
        check_choice("dag_kernel", self.dag_kernel, KERNELS)
        check_choice("initialization", self.initialization, SCHEMES)
        if self.fusion_input != "x" and self.d_z != self.d_x:
            raise ValueError(f"fusion_input {self.fusion_input} needs d_z = d_x, not {self.d_z} and {self.d_x}")
        if self.dag_output == "last" and self.d_h != self.d_x:
            raise ValueError(f"dag_output last needs d_h = d_x, not {self.d_h} and {self.d_x}")
        check_heads(self.num_heads, self.d_x, "d_x")
        if self.bidirectional and not self.causal and self.d_r % 2:
            raise ValueError(f"d_r must be even for a bidirectional GRU, not {self.d_r}")
        check_at_least_one(self, "omega")
        check_rates(self, "dropout_rate")

    def _dense(self, features: int, fan_in: int, name: str) -> nn.Dense:
        return dense(features, fan_in, name=name, **SCHEMES[self.initialization])

    def _encode(self, batch: Batch, available: Mapping[str, jax.Array], train: bool) -> dict[str, jax.Array]:
        """Eqs. 2 and 3."""
        inputs = {m: zero_unless(available[m], batch.features[m]) for m in self.modalities}
        forward_and_back = self.bidirectional and not self.causal
        scheme = SCHEMES[self.initialization]
        grus = ModalityBiGRUs(
            self.d_r, forward_and_back, recurrent_kernel_init=scheme["kernel_init"], name="gru", **scheme
        )
        states = grus(inputs, batch.mask, segments=batch.segments)
        hidden = jnp.stack([states[m] for m in self.modalities], axis=1)
        hidden = ConversationDropout(self.dropout_rate)(hidden, train=train, row_ids=batch.row_ids)
        graph = predecessor_graph(batch.speakers, batch.mask, window=self.omega, segments=batch.segments)
        encoder = DAGEncoder(
            self.d_x, self.d_h, self.dag_layers, self.dag_output, kernel=self.dag_kernel, name="graph", **scheme
        )
        encode = self._for_each_modality(encoder, (1, None, None), shared=self.dag_shared)
        return self._by_modality(zero_unless(batch.mask[None], encode(hidden, *graph)))

    def _for_each_modality(self, module: nn.Module, in_axes: tuple, *, shared: bool = False) -> Callable:
        """Returns a call of a layer that runs a copy of it for each modality, in the order of `modalities`."""
        return stacked(module, in_axes=in_axes, shared=shared, size=len(self.modalities))

    def _by_modality(self, stacked: jax.Array) -> dict[str, jax.Array]:
        return dict(zip(self.modalities, unstacked(stacked), strict=True))

    def _augment(
        self, batch: Batch, encoded: Mapping[str, jax.Array], available: Mapping[str, jax.Array], train: bool
    ) -> tuple[dict[str, jax.Array], jax.Array | None, dict[str, jax.Array]]:
        """Eqs. 4-9. Returns the modalities' streams, the atmosphere and the attention maps."""
        dominant = self.effective_dominant
        maps: dict[str, jax.Array] = {}
        present = {m: zero_unless(available[m], x) for m, x in encoded.items()}
        pair_mask = batch.segments.same_segment()
        if self.causal:
            pair_mask = pair_mask & jnp.tri(batch.mask.shape[1], dtype=bool)[None]
        sources = jnp.stack([present[m] for m in self.modalities])
        masks = jnp.stack([available[m] for m in self.modalities])
        target, shared_query = present[dominant], self.qkv_sharing == "per_modality"
        if shared_query:
            project = dense(
                self.d_x, self.d_x, use_bias=self.qkv_bias, name="shared_query", **SCHEMES[self.initialization]
            )
            target = project(target)
        residual, residual_axis = (present[dominant], None) if self.cross_residual == "query" else (sources, 0)
        block = LanguageGuidedBlock(
            self.num_heads,
            self.ffn_mult * self.d_x,
            self.dropout_rate,
            self.qkv_bias,
            not shared_query,
            name="language_guided",
            **SCHEMES[self.initialization],
        )
        augment = self._for_each_modality(block, (None, 0, residual_axis, 0))
        out, weights = augment(
            target, sources, residual, masks, pair_mask=pair_mask, train=train, row_ids=batch.row_ids
        )
        maps |= {f"{m}_to_{dominant}": w for m, w in self._by_modality(weights).items()}
        augmented = self._by_modality(zero_unless(masks, out))
        merged = sum(augmented.values()) + present[dominant]
        atmosphere, after, maps["atmosphere"] = ConversationAtmosphere(
            self.num_heads,
            self.ffn_mult * self.d_x,
            self.dropout_rate,
            self.qkv_bias,
            self.causal,
            name="atmosphere",
            **SCHEMES[self.initialization],
        )(merged, batch.mask, segments=batch.segments, train=train, row_ids=batch.row_ids)
        streams = dict(encoded)
        streams[dominant] = {"encoder": encoded[dominant], "lfa": augmented[dominant], "fused": after}[
            self.language_stream
        ]
        if not self.use_atmosphere:
            return streams, None, maps
        added = atmosphere if self.causal else batch.segments.broadcast(atmosphere)
        return {m: x + added for m, x in streams.items()}, atmosphere, maps

    def _token_attention(self, maps: Mapping[str, jax.Array], batch: Batch) -> jax.Array:
        """Returns `LFVDOutput.atmosphere_attention`."""
        attention, segments = maps["atmosphere"].mean(1)[:, :, 1:], batch.segments
        if not self.causal:
            # The tokens of other conversations do not see an utterance.
            return attention.sum(1)
        place = jnp.arange(batch.mask.shape[1])[None, None, :]
        last = jnp.where(segments.membership() & batch.mask[:, None, :], place, 0).max(-1)
        reader = jnp.take_along_axis(last, segments.ids, axis=1)
        return jnp.take_along_axis(attention, reader[:, None, :], axis=1)[:, 0]

    def _posteriors(self, features: Mapping[str, jax.Array]) -> dict[str, Gaussian]:
        """Eq. 12."""
        head = GaussianHead(self.d_z, self.sigma_param, name="posterior", **SCHEMES[self.initialization])
        posterior = self._for_each_modality(head, (0,))(jnp.stack([features[m] for m in self.modalities]))
        posterior = jax.tree.map(at_least_float32, posterior)
        means, scales = self._by_modality(posterior.mean), self._by_modality(posterior.scale)
        return {m: Gaussian(means[m], scales[m]) for m in self.modalities}

    def _sample(self, posteriors: Mapping[str, Gaussian], batch: Batch) -> dict[str, jax.Array]:
        keys = jax.random.split(self.make_rng("latent"), len(posteriors))
        return {m: sample(q, key, batch.row_ids) for (m, q), key in zip(posteriors.items(), keys, strict=True)}

    def _fuse(
        self,
        inputs: Mapping[str, jax.Array],
        posteriors: Mapping[str, Gaussian],
        available: Mapping[str, jax.Array],
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Eqs. 14-17, or one of the paper's other strategies. Returns x^f and the weights."""
        concatenated = jnp.concatenate(list(inputs.values()), axis=-1)
        if self.fusion == "cat":
            return self._dense(self.d_x, concatenated.shape[-1], "concatenation")(concatenated), {}
        if self.fusion == "gate":
            gates = {
                m: nn.sigmoid(self._dense(self.d_x, concatenated.shape[-1], f"gate_{m}")(concatenated)) for m in inputs
            }
            return functools.reduce(jnp.add, (gates[m] * x for m, x in inputs.items())), {}
        weights = kl_fusion_weights(
            posteriors,
            dominant=self.effective_dominant,
            weighting="ones" if self.fusion == "add" else self.weight_fn,
            reduction=self.weight_kl_reduction,
        )
        if self.weight_stop_grad:
            weights = jax.lax.stop_gradient(weights)
        # Without the dominant modality there is no divergence from it: the others have weight 1.
        weights = {m: jnp.where(available[self.effective_dominant], w, 1) for m, w in weights.items()}
        weights[self.effective_dominant] = jnp.ones(available[self.effective_dominant].shape)
        weights = {m: jnp.where(available[m], weights[m], 0) for m in inputs}
        return kl_weighted_fusion(inputs, weights, dominant=self.effective_dominant), weights


@dataclasses.dataclass(frozen=True)
class LFVDLoss:
    """The losses of LFVD (Eqs. 10, 11, 13, 19-21).

    Attributes:
      gamma_self: γ1, weight of the self-supervised contrast; a term of weight 0 is not computed.
      gamma_full: γ2, weight of the supervised contrast.
      gamma_distillation: γ3, weight of the distillation.
      tau: temperature of both contrasts.
      self_denominator: denominator of the self-supervised contrast: `negatives` (as printed; values may be negative) or
        `all` (with the positive pair, as InfoNCE).
      supcon_denominator: denominator of the supervised contrast: `negatives` (utterances of other emotions, as
        printed), `negatives_plus_self` or `all_but_self` (Khosla et al., 2020).
      contrast_scope: negatives of the self-supervised contrast come from the whole `batch` or the same `conversation`.
      kl_estimator: `analytic`, or `mc` for one-sample Monte Carlo in Eq. 13 during training.
      teacher_stop_grad: True = distillation does not move the dominant modality's Gaussian.
      recon_weight: weight of the mean squared error of the reconstructions; 0 = no decoder.
      class_weights: weight of each emotion in the cross-entropy, `C` numbers; empty = all 1.
      dominant: the teacher; see `LFVD.dominant`.
    """

    gamma_self: float = 3.5e-2
    gamma_full: float = 5e-3
    gamma_distillation: float = 3e-3
    tau: float = 0.5
    self_denominator: str = "negatives"
    supcon_denominator: str = "negatives"
    contrast_scope: str = "batch"
    kl_estimator: str = "analytic"
    teacher_stop_grad: bool = False
    recon_weight: float = 0.0
    class_weights: tuple[float, ...] = ()
    dominant: str = "text"

    def __post_init__(self):
        if self.tau <= 0:
            raise ValueError(f"tau must be above 0, not {self.tau}")
        check_choice("dominant modality", self.dominant, MODALITIES)
        check_choice("self_denominator", self.self_denominator, ("negatives", "all"))
        check_choice(
            "supcon_denominator", self.supcon_denominator, ("negatives", "negatives_plus_self", "all_but_self")
        )
        check_choice("contrast_scope", self.contrast_scope, ("batch", "conversation"))
        check_choice("kl_estimator", self.kl_estimator, ("analytic", "mc"))

    def __call__(self, output: LFVDOutput, batch: Batch, axis: str | None = None) -> dict[str, tuple]:
        """Returns each term as (weight, sum over this device's utterances, their count).

        The loss is the sum over terms of weight · (sum / count), both summed over the mapped `axis` first.

        Raises:
          ValueError: if there are class weights, but not one for each emotion.
        """
        labelled = batch.mask & (batch.labels >= 0)
        available = {m: batch.available[m] & batch.mask for m in output.features}
        rows = {m: x.reshape(-1, x.shape[-1]) for m, x in output.features.items()}
        flat = {m: where.reshape(-1) for m, where in available.items()}
        classification = classification_term(output.logits, batch.labels, batch.mask, self.class_weights)
        terms = {"classification": (1.0, *classification)}
        if not is_off(self.gamma_self) and len(rows) > 1:
            values = cross_modal_contrastive(
                rows,
                where=flat,
                temperature=self.tau,
                denominator=self.self_denominator,
                groups=_conversations(batch, axis) if self.contrast_scope == "conversation" else None,
                axis=axis,
            )
            terms["self"] = (self.gamma_self, jnp.sum(values), jnp.sum(batch.mask))
        if not is_off(self.gamma_full):
            values = supervised_contrastive(
                rows,
                batch.labels.reshape(-1),
                where=flat,
                temperature=self.tau,
                denominator=self.supcon_denominator,
                axis=axis,
            )
            terms["full"] = (self.gamma_full, jnp.sum(values), jnp.sum(labelled))
        if not is_off(self.gamma_distillation):
            values = variational_distillation(
                output.posteriors,
                teacher=effective_dominant(self.dominant, output.posteriors),
                stop_teacher_gradient=self.teacher_stop_grad,
                where=available,
                samples=output.samples if self.kl_estimator == "mc" else None,
            )
            terms["distillation"] = (self.gamma_distillation, jnp.sum(values), jnp.sum(batch.mask))
        if not is_off(self.recon_weight) and output.reconstructions is not None:
            total = jnp.float32(0)
            for m, reconstruction in output.reconstructions.items():
                # The target is held still, or shrinking it would be the cheapest way to match it.
                error = jnp.square(reconstruction - jax.lax.stop_gradient(output.features[m])).mean(-1)
                total += jnp.sum(jnp.where(available[m], error, 0))
            terms["reconstruction"] = (self.recon_weight, total, jnp.sum(batch.mask))
        return terms


def _conversations(batch: Batch, axis: str | None) -> jax.Array:
    """Numbers each utterance's conversation, uniquely over the devices of `axis`: int32 `[B * T]`."""
    rows, segments = batch.mask.shape[0], batch.segments
    first = 0 if axis is None else jax.lax.axis_index(axis) * rows
    row = first + jnp.arange(rows)
    return (row[:, None] * segments.count + segments.ids).reshape(-1)


def _derived(model: Mapping, loss: Mapping) -> tuple[dict, dict]:
    """Returns the fields of `LFVD` that only a loss term needs, and the teacher of `LFVDLoss`."""
    reconstruct = loss["recon_weight"] > 0
    draw_samples = reconstruct or loss["kl_estimator"] == "mc"
    return {"reconstruct": reconstruct, "draw_samples": draw_samples}, {"dominant": model["dominant"]}


def _fusion_weights(output: LFVDOutput, batch: Batch) -> Mapping[str, jax.Array]:
    return output.weights


def _attention(output: LFVDOutput, batch: Batch) -> dict[str, jax.Array]:
    return {} if output.atmosphere_attention is None else {"atmosphere": output.atmosphere_attention}


def _encoders(module: LFVD) -> Encoders:
    return encoders_of(module, "gru/{}_", stacked=() if module.dag_shared else ("graph/",))


SPEC = ModelSpec(
    name="lfvd",
    module=LFVD,
    loss=LFVDLoss,
    defaults={"model.modalities": ()},
    derived=_derived,
    derived_model_fields=("reconstruct", "draw_samples"),
    derived_loss_fields=("dominant",),
    loss_weights=("gamma_self", "gamma_full", "gamma_distillation", "recon_weight"),
    rng_streams=("dropout", "latent"),
    packing=True,
    handles_missing=True,
    bfloat16=True,
    summaries=Summaries(_fusion_weights, _attention, {"attention": True}),
    encoders=_encoders,
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {
            "model.d_r": 16,
            "model.d_h": 16,
            "model.d_x": 16,
            "model.d_z": 4,
            "model.num_heads": 2,
            "training.epochs": 2,
        },
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion, which would need many
        # times the epochs with the paper's learning rate.
        "plain_features": {
            "model.d_r": 128,
            "model.d_h": 128,
            "model.d_x": 128,
            "model.num_heads": 4,
            "model.dropout_rate": 0.5,
            "optimizer.learning_rate": 1e-3,
            "optimizer.weight_decay": 1e-4,
            "training.batch_size": 8,
            "training.epochs": 25,
        },
        # Table 4.
        **MODALITY_SUBSETS,
        # Table 5: components.
        "without_lfa_transformer": {
            "model.use_atmosphere": False,
            "model.language_stream": "encoder",
            "loss.gamma_self": 0.0,
            "loss.gamma_full": 0.0,
        },
        "without_cear": {"model.use_atmosphere": False},
        "without_dl": {"loss.gamma_self": 0.0, "loss.gamma_full": 0.0},
        "without_cmvd": {"loss.gamma_distillation": 0.0, "model.weight_fn": "ones"},
        "without_cmvd_fusion": {"model.weight_fn": "ones"},
        "without_cmvd_distillation": {"loss.gamma_distillation": 0.0},
        "dominant_audio": {"model.dominant": "audio"},
        "dominant_visual": {"model.dominant": "visual"},
        # Table 6: loss terms.
        "without_self": {"loss.gamma_self": 0.0},
        "without_full": {"loss.gamma_full": 0.0},
        "without_distillation": {"loss.gamma_distillation": 0.0},
        "without_all": {"loss.gamma_self": 0.0, "loss.gamma_full": 0.0, "loss.gamma_distillation": 0.0},
        # Fig. 2: fusion strategies.
        "fusion_add": {"model.fusion": "add"},
        "fusion_cat": {"model.fusion": "cat"},
        "fusion_gate": {"model.fusion": "gate"},
    },
)
