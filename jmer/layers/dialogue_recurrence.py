"""The recurrence of DialogueRNN, with a derivative written by hand.

Products with the input are computed for all utterances before the loop, the weights' gradients after it, each as one
product; the loop has only what depends on states. What a state sees of the history is read in blocks of steps: the
utterances before the block by one product for all of its steps, and within a step only those of the block. On an
accelerator a block is the whole row, and all recurrences advance together.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmer.layers.gru import Gates, gru_backward, gru_gates, gru_next
from jmer.layers.slices import put, take

# Steps whose view of what came before their block is one product, on a CPU.
CPU_BLOCK = 16

# Bytes of weights that the cache of a CPU's cores can be expected to keep from one step to the next.
CPU_CACHE = 12 * 2**20

_LOWEST = -1e30


class Concatenation(NamedTuple):
    """Scores by a hidden layer: `kernel` `[G, D_g, D_a]`, for the history, and `score` `[G, D_a]`."""

    kernel: jax.Array
    score: jax.Array


class Listening(NamedTuple):
    """GRU_L: `speaker_kernel` and `state_kernel` `[G, D_p, 3 D_p]`, `state_bias` `[G, 3 D_p]`."""

    speaker_kernel: jax.Array
    state_kernel: jax.Array
    state_bias: jax.Array


class Weights(NamedTuple):
    """What multiplies states, of `G` recurrences side by side.

    Attributes:
      party_kernel: `[G, D_p, 3 D_g + 3 D_p]`, of the speaker's state: as input of GRU_G and as state of GRU_P.
      global_kernel, global_bias: `[G, D_g, 3 D_g]`, `[G, 3 D_g]`, of GRU_G's state.
      context_kernel, party_bias: `[G, D_g, 3 D_p]`, of GRU_P's input; `[G, 3 D_p]`, of its state.
      spoken_kernel, spoken_bias: `[G, D_p, 3 D_e]`, `[G, 3 D_e]`, of GRU_E's input.
      emotion_kernel, emotion_bias: `[G, D_e, 3 D_e]`, `[G, 3 D_e]`, of GRU_E's state.
      concatenation: scores the history together with `Inputs.query`; None = by a product with it.
      listening: None = listeners keep their states.
    """

    party_kernel: jax.Array
    global_kernel: jax.Array
    global_bias: jax.Array
    context_kernel: jax.Array
    party_bias: jax.Array
    spoken_kernel: jax.Array
    spoken_bias: jax.Array
    emotion_kernel: jax.Array
    emotion_bias: jax.Array
    concatenation: Concatenation | None = None
    listening: Listening | None = None


class Inputs(NamedTuple):
    """The utterances' parts of linear maps, biases included.

    Attributes:
      to_global, to_party: `[G, B, T, 3 D_g]`, `[G, B, T, 3 D_p]`.
      query: `[G, B, T, D_g]`, by which the history is scored; `[G, B, T, D_a]` with a `Concatenation`.
      to_listeners: `[G, B, T, 3 D_p]`, (None where they keep their states).
    """

    to_global: jax.Array
    to_party: jax.Array
    query: jax.Array
    to_listeners: Any = None


class Scales(NamedTuple):
    """Factors of new states: 0 where dropped.

    `state` `[G, B, T, D_g]`, `party` `[G, B, T, D_p]`, `emotion` `[G, B, T, D_e]`, and `listeners` `[G, B, T, P, D_p]`
    or None.
    """

    state: jax.Array
    party: jax.Array
    emotion: jax.Array
    listeners: Any = None


class Turns(NamedTuple):
    """Who speaks when, in the order in which a recurrence reads.

    Attributes:
      speaker: int `[G, B, T]`.
      real: bool `[G, B, T, 1]`; elsewhere states stay as they are.
      begins: bool `[G, B, T, 1]`, True where the states before are zero.
      visible: bool `[G, B, T, T]`, True where the last axis is an earlier utterance of the conversation.
      previous: int `[G, B, T]`, the place of the speaker's previous utterance in the conversation; `T` = none.
      following: int `[G, B, T]`, the place of the speaker's next utterance in the conversation; `T` = none.
    """

    speaker: jax.Array
    real: jax.Array
    begins: jax.Array
    visible: jax.Array
    previous: jax.Array
    following: jax.Array


def turns(speakers: jax.Array, mask: jax.Array, segment_ids: jax.Array) -> Turns:
    """Returns the turns of rows, without the axis `G`; speakers, mask and conversations are `[B, T]`."""
    length = mask.shape[1]
    place = jnp.arange(length)
    together = segment_ids[:, :, None] == segment_ids[:, None]
    together &= mask[:, :, None] & mask[:, None]
    earlier = place[None, :, None] > place[None, None]
    own = together & (speakers[:, :, None] == speakers[:, None])
    last = jnp.where(own & earlier, place[None, None], -1).max(-1)
    begins = jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    return Turns(
        speaker=speakers,
        real=mask[..., None],
        begins=begins[..., None],
        visible=together & earlier,
        previous=jnp.where(last < 0, length, last),
        following=jnp.where(own & earlier.swapaxes(1, 2), place[None, None], length).min(-1),
    )


def padded_length(length: int) -> int:
    """Returns the least length of a row, from `length` on, that a CPU's blocks divide."""
    return -(-length // _cpu_block(length)) * _cpu_block(length)


def _cpu_block(length: int) -> int:
    # The same for a length and its padded one.
    return -(-length // -(-length // CPU_BLOCK))


class _History(NamedTuple):
    """What the steps leave for the way back, `[G, B, T, ...]`; `parties` has a last entry, which is zero."""

    states: jax.Array
    parties: jax.Array
    emotions: jax.Array
    context: jax.Array | None
    of_global: Gates | None
    of_party: Gates | None
    of_emotion: Gates | None


def recurrence(weights: Weights, inputs: Inputs, scales: Scales | None, order: Turns) -> jax.Array:
    """Reads the rows: in the way of the platform that the program is compiled for.

    Args:
      weights: without `concatenation` and `listening`.
      inputs: of a length that `padded_length` returns.
      scales: None = 1.
      order: the turns.

    Returns:
      The emotions, `[G, B, T, D_e]`; where nothing is real, those before.
    """
    return jax.lax.platform_dependent(
        weights, inputs, scales, order, cpu=_on_cpu, default=functools.partial(_recurrence, inputs.query.shape[2])
    )


def _on_cpu(weights: Weights, inputs: Inputs, scales: Scales | None, order: Turns) -> jax.Array:
    """Reads the rows in blocks; as many recurrences advance together as have their weights in the cache."""
    groups, together = len(inputs.query), _together(weights)
    read = functools.partial(_recurrence, _cpu_block(inputs.query.shape[2]))
    if together == groups:
        return read(weights, inputs, scales, order)
    parts = jax.tree.map(
        lambda x: x.reshape(groups // together, together, *x.shape[1:]), (weights, inputs, scales, order)
    )
    emotions = jax.lax.map(lambda part: read(*part), parts)
    return emotions.reshape(groups, *emotions.shape[2:])


def _together(weights: Weights) -> int:
    """Returns how many recurrences advance together on a CPU: a divisor of their number."""
    groups, size = len(weights.global_kernel), sum(x.nbytes for x in jax.tree.leaves(weights))
    # Every step reads all weights of what advances together, which memory gives more slowly than the cache.
    return max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or size * n <= CPU_CACHE * groups))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recurrence(size: int, weights: Weights, inputs: Inputs, scales: Scales | None, order: Turns) -> jax.Array:
    """Reads the rows in blocks of `size` steps."""
    return _forward(size, weights, inputs, scales, order, keep=False).emotions


def _recurrence_forward(size, weights, inputs, scales, order):
    history = _forward(size, weights, inputs, scales, order, keep=True)
    return history.emotions, (weights, inputs, scales, order, history)


def _forward(
    size: int, weights: Weights, inputs: Inputs, scales: Scales | None, order: Turns, *, keep: bool
) -> _History:
    groups, rows, length, d_g = inputs.query.shape
    d_p, d_e = weights.party_kernel.shape[1], weights.emotion_kernel.shape[1]
    place = jnp.arange(length)[None, None, None]

    def empty(*shape):
        return jnp.zeros((groups, rows, *shape), inputs.query.dtype)

    def block(n, carry):
        start = n * size
        history, state, emotion = carry
        seen, queries = take(order.visible, start, size, axis=2), take(inputs.query, start, size, axis=2)
        far = _attend(queries, history.states, seen & (place < start))
        near_seen = take(seen, start, size, axis=3)

        def step(i, carry):
            history, state, emotion, near = carry
            t = start + i
            begin, real = take(order.begins, t, axis=2), take(order.real, t, axis=2)
            state, emotion = jnp.where(begin, 0, state), jnp.where(begin, 0, emotion)
            party = _at(history.parties, take(order.previous, t, axis=2))
            of_party = _product(party, weights.party_kernel)
            context = _joined(
                _attend_near(take(queries, i, axis=2), near, take(near_seen, i, axis=2)),
                jax.tree.map(lambda x: take(x, i, axis=2), far),
            )
            global_gates = gru_gates(
                take(inputs.to_global, t, axis=2) + of_party[..., : 3 * d_g],
                _product(state, weights.global_kernel) + weights.global_bias[:, None],
            )
            party_gates = gru_gates(
                take(inputs.to_party, t, axis=2) + _product(context, weights.context_kernel),
                of_party[..., 3 * d_g :] + weights.party_bias[:, None],
            )
            new_party = _scaled(gru_next(party_gates, party), scales and scales.party, t)
            emotion_gates = gru_gates(
                _product(new_party, weights.spoken_kernel) + weights.spoken_bias[:, None],
                _product(emotion, weights.emotion_kernel) + weights.emotion_bias[:, None],
            )
            state = jnp.where(real, _scaled(gru_next(global_gates, state), scales and scales.state, t), state)
            emotion = jnp.where(real, _scaled(gru_next(emotion_gates, emotion), scales and scales.emotion, t), emotion)
            kept = (context, global_gates, party_gates, emotion_gates) if keep else (None,) * 4
            made = _History(state, new_party, emotion, *kept)
            history = jax.tree.map(lambda buffer, value: put(buffer, value, t, axis=2), history, made)
            return history, state, emotion, put(near, state, i, axis=2)

        return jax.lax.fori_loop(0, size, step, (history, state, emotion, empty(size, d_g)))[:3]

    def gates(width):
        return Gates(empty(length, 2 * width), empty(length, width), empty(length, width))

    kept = (empty(length, d_g), gates(d_g), gates(d_p), gates(d_e)) if keep else (None,) * 4
    history = _History(empty(length, d_g), empty(length + 1, d_p), empty(length, d_e), *kept)
    return jax.lax.fori_loop(0, length // size, block, (history, empty(d_g), empty(d_e)))[0]


def _recurrence_backward(size, saved, emotions_bar):
    weights, inputs, scales, order, history = saved
    groups, rows, length, d_g = inputs.query.shape
    d_p, place = weights.party_kernel.shape[1], jnp.arange(length)[None, None, None]
    states_before, emotions_before = (
        jnp.where(order.begins, 0, jnp.pad(x[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0))))
        for x in (history.states, history.emotions)
    )
    parties_before = jnp.take_along_axis(history.parties, order.previous[..., None], axis=2, mode="promise_in_bounds")
    scores = jnp.einsum("gbtd,gbjd->gbtj", inputs.query, history.states)
    attention = jax.nn.softmax(scores, where=order.visible)
    # Laid out once for products that would otherwise run along the memory's slow direction at every step.
    back: Weights = jax.lax.optimization_barrier(
        jax.tree.map(lambda x: jnp.swapaxes(x, 1, 2) if x.ndim == 3 else x, weights)
    )

    def block(n, carry):
        start = length - (n + 1) * size
        bars, befores_bar, state_bar, emotion_bar = carry
        queries, near = (take(x, start, size, axis=2) for x in (inputs.query, history.states))
        attending = take(attention, start, size, axis=2)
        near_attending = take(attending, start, size, axis=3)

        def step(i, carry):
            bars, befores_bar, near_bar, state_bar, emotion_bar = carry
            i = size - 1 - i
            t = start + i
            begin, real = take(order.begins, t, axis=2), take(order.real, t, axis=2)
            party_before, context = take(parties_before, t, axis=2), take(history.context, t, axis=2)
            of_global, of_party, of_emotion = (
                jax.tree.map(lambda x: take(x, t, axis=2), gates)
                for gates in (history.of_global, history.of_party, history.of_emotion)
            )
            emotion_bar += take(emotions_bar, t, axis=2)
            new_emotion_bar = _scaled(jnp.where(real, emotion_bar, 0), scales and scales.emotion, t)
            emotion_gates, emotion_before_bar = gru_backward(
                of_emotion, take(emotions_before, t, axis=2), new_emotion_bar
            )
            emotion_before_bar += _product(emotion_gates.state, back.emotion_kernel)

            party_bar = _product(emotion_gates.input, back.spoken_kernel)
            party_bar += _at(befores_bar, take(order.following, t, axis=2))
            party_bar = _scaled(party_bar, scales and scales.party, t)
            party_gates, party_before_bar = gru_backward(of_party, party_before, party_bar)
            context_bar = _product(party_gates.input, back.context_kernel)

            weight, query = take(near_attending, i, axis=2), take(queries, i, axis=2)
            score_bar = _scores_backward(weight, jnp.einsum("gbd,gbkd->gbk", context_bar, near), context_bar, context)
            near_bar += weight[..., None] * context_bar[:, :, None] + score_bar[..., None] * query[:, :, None]

            state_bar += take(near_bar, i, axis=2)
            new_state_bar = _scaled(jnp.where(real, state_bar, 0), scales and scales.state, t)
            global_gates, state_before_bar = gru_backward(of_global, take(states_before, t, axis=2), new_state_bar)
            state_before_bar += _product(global_gates.state, back.global_kernel)
            both = jnp.concatenate([global_gates.input, party_gates.state], axis=-1)
            party_before_bar += _product(both, back.party_kernel)

            state_before_bar += jnp.where(real, 0, state_bar)
            emotion_before_bar += jnp.where(real, 0, emotion_bar)
            made = _Bars(new_state_bar, party_bar, new_emotion_bar, context_bar)
            return (
                jax.tree.map(lambda buffer, value: put(buffer, value, t, axis=2), bars, made),
                put(befores_bar, party_before_bar, t, axis=2),
                near_bar,
                jnp.where(begin, 0, state_before_bar),
                jnp.where(begin, 0, emotion_before_bar),
            )

        near_bar = take(bars.history, start, size, axis=2)
        carry = bars.of_steps, befores_bar, near_bar, state_bar, emotion_bar
        of_steps, befores_bar, _, state_bar, emotion_bar = jax.lax.fori_loop(0, size, step, carry)
        context_bar = take(of_steps.context, start, size, axis=2)
        far_attending = jnp.where(place < start, attending, 0)
        score_bar = _scores_backward(
            far_attending,
            jnp.einsum("gbkd,gbjd->gbkj", context_bar, history.states),
            context_bar,
            take(history.context, start, size, axis=2),
        )
        history_bar = bars.history + jnp.einsum(
            "gbkj,gbkd->gbjd",
            jnp.concatenate([far_attending, score_bar], axis=2),
            jnp.concatenate([context_bar, queries], axis=2),
        )
        return _Carried(history_bar, of_steps), befores_bar, state_bar, emotion_bar

    def empty(*shape):
        return jnp.zeros((groups, rows, *shape), inputs.query.dtype)

    bars = _Carried(
        empty(length, d_g),
        _Bars(*(empty(length, width) for width in (d_g, d_p, emotions_bar.shape[-1], d_g))),
    )
    carry = bars, empty(length + 1, d_p), empty(d_g), empty(emotions_bar.shape[-1])
    bars = jax.lax.fori_loop(0, length // size, block, carry)[0].of_steps
    of_global, _ = gru_backward(history.of_global, states_before, bars.state)
    of_party, _ = gru_backward(history.of_party, parties_before, bars.party)
    of_emotion, _ = gru_backward(history.of_emotion, emotions_before, bars.emotion)
    score_bar = _scores_backward(
        attention, jnp.einsum("gbtd,gbjd->gbtj", bars.context, history.states), bars.context, history.context
    )
    of_speaker = jnp.concatenate([of_global.input, of_party.state], axis=-1)
    weights_bar = Weights(
        party_kernel=_outer(parties_before, of_speaker),
        global_kernel=_outer(states_before, of_global.state),
        global_bias=of_global.state.sum((1, 2)),
        context_kernel=_outer(history.context, of_party.input),
        party_bias=of_party.state.sum((1, 2)),
        spoken_kernel=_outer(history.parties[:, :, :-1], of_emotion.input),
        spoken_bias=of_emotion.input.sum((1, 2)),
        emotion_kernel=_outer(emotions_before, of_emotion.state),
        emotion_bias=of_emotion.state.sum((1, 2)),
    )
    query_bar = jnp.einsum("gbtj,gbjd->gbtd", score_bar, history.states)
    return weights_bar, Inputs(of_global.input, of_party.input, query_bar), None, None


_recurrence.defvjp(_recurrence_forward, _recurrence_backward)


class _Bars(NamedTuple):
    """Gradients of what each step makes, before dropout, `[G, B, T, ...]`."""

    state: jax.Array
    party: jax.Array
    emotion: jax.Array
    context: jax.Array


class _Carried(NamedTuple):
    """What blocks hand back: `history` `[G, B, T, D_g]`, the states' gradient by way of later blocks; `of_steps`."""

    history: jax.Array
    of_steps: _Bars


class _Read(NamedTuple):
    """A part of a softmax: its `highest` score, and relative to it the `total` of powers `[..., 1]` and their `sum`."""

    highest: jax.Array
    total: jax.Array
    sum: jax.Array


def _attend(queries: jax.Array, states: jax.Array, seen: jax.Array) -> _Read:
    """Reads `states` `[G, B, J, D]` by `queries` `[G, B, K, D]` where `seen` `[G, B, K, J]`."""
    scores = jnp.where(seen, jnp.einsum("gbkd,gbjd->gbkj", queries, states), _LOWEST)
    highest = scores.max(-1, keepdims=True)
    powers = jnp.where(seen, jnp.exp(scores - highest), 0)
    return _Read(highest, powers.sum(-1, keepdims=True), jnp.einsum("gbkj,gbjd->gbkd", powers, states))


def _attend_near(query: jax.Array, states: jax.Array, seen: jax.Array) -> _Read:
    read = _attend(query[:, :, None], states, seen[:, :, None])
    return _Read(*(part.squeeze(2) for part in read))


def _joined(one: _Read, other: _Read) -> jax.Array:
    """Returns the mean that two parts of a softmax make together; zero where neither has anything."""
    highest = jnp.maximum(one.highest, other.highest)
    scale, other_scale = jnp.exp(one.highest - highest), jnp.exp(other.highest - highest)
    total = one.total * scale + other.total * other_scale
    return (one.sum * scale + other.sum * other_scale) / jnp.where(total > 0, total, 1)


def _scores_backward(
    weights: jax.Array, weights_bar: jax.Array, context_bar: jax.Array, context: jax.Array
) -> jax.Array:
    # The mean over the softmax of its gradients is a product with what was read.
    return weights * (weights_bar - (context_bar * context).sum(-1, keepdims=True))


def _at(buffer: jax.Array, place: jax.Array) -> jax.Array:
    """Returns each row's entry of `buffer` `[G, B, T, D]` at `place` `[G, B]`."""
    entries = jnp.take_along_axis(buffer, place[..., None, None], axis=2, mode="promise_in_bounds")
    return entries.squeeze(2)


def _product(x: jax.Array, kernels: jax.Array) -> jax.Array:
    return jnp.einsum("gbd,gde->gbe", x, kernels)


def _outer(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum("gbtd,gbte->gde", x, y)


def _scaled(x: jax.Array, scale: jax.Array | None, t: jax.Array) -> jax.Array:
    return x if scale is None else x * take(scale, t, axis=2)


def scan_recurrence(
    weights: Weights, inputs: Inputs, scales: Scales | None, order: Turns, parties: int = 0
) -> jax.Array:
    """Computes `recurrence` by a scan, whose derivatives of any mode and order are JAX's own.

    Args:
      weights, inputs, scales, order: see `recurrence`; `concatenation` and `listening` may be there.
      parties: `P`, where listeners are updated; further parties share the last state.

    Returns:
      `[G, B, T, D_e]`.
    """
    groups, rows, length, _ = inputs.query.shape
    d_g, d_p, d_e = weights.global_kernel.shape[1], weights.party_kernel.shape[1], weights.emotion_kernel.shape[1]

    def step(carry, now):
        state, states, party_states, emotion = carry
        t, given, scale, turn = now
        scale = scale or Scales(*(jnp.ones(()),) * 4)
        begin, real = turn.begins, turn.real
        state, emotion = jnp.where(begin, 0, state), jnp.where(begin, 0, emotion)
        if parties:
            party_states = jnp.where(begin[..., None], 0, party_states)
            speaks = jnp.minimum(turn.speaker, parties - 1)[..., None] == jnp.arange(parties)[None, None]
            party = jnp.where(speaks[..., None], party_states, 0).sum(2)
        else:
            party = _at(party_states, turn.previous)
        of_party = _product(party, weights.party_kernel)
        attention = jax.nn.softmax(_scores(weights.concatenation, given.query, states), where=turn.visible)
        context = jnp.einsum("gbj,gbjd->gbd", attention, states)
        of_global = gru_gates(
            given.to_global + of_party[..., : 3 * d_g],
            _product(state, weights.global_kernel) + weights.global_bias[:, None],
        )
        of_speaker = gru_gates(
            given.to_party + _product(context, weights.context_kernel),
            of_party[..., 3 * d_g :] + weights.party_bias[:, None],
        )
        new_party = gru_next(of_speaker, party) * scale.party
        of_emotion = gru_gates(
            _product(new_party, weights.spoken_kernel) + weights.spoken_bias[:, None],
            _product(emotion, weights.emotion_kernel) + weights.emotion_bias[:, None],
        )
        state = jnp.where(real, gru_next(of_global, state) * scale.state, state)
        emotion = jnp.where(real, gru_next(of_emotion, emotion) * scale.emotion, emotion)
        listening = weights.listening
        if listening is not None:
            message = given.to_listeners + _product(new_party, listening.speaker_kernel)
            kept = jnp.einsum("gbpd,gde->gbpe", party_states, listening.state_kernel)
            of_listeners = gru_gates(message[:, :, None], kept + listening.state_bias[:, None, None])
            others = gru_next(of_listeners, party_states) * scale.listeners
            updated = jnp.where(speaks[..., None], new_party[:, :, None], others)
            party_states = jnp.where(real[..., None], updated, party_states)
        else:
            party_states = changed(party_states, new_party, t)
        return (state, changed(states, state, t), party_states, emotion), emotion

    def empty(*shape):
        return jnp.zeros((groups, rows, *shape), inputs.query.dtype)

    changed = functools.partial(jax.lax.dynamic_update_index_in_dim, axis=2)
    start = empty(d_g), empty(length, d_g), empty(parties or length + 1, d_p), empty(d_e)
    steps = jnp.arange(length), *jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0), (inputs, scales, order))
    return jnp.moveaxis(jax.lax.scan(step, start, steps)[1], 0, 2)


def _scores(concatenation: Concatenation | None, query: jax.Array, states: jax.Array) -> jax.Array:
    if concatenation is None:
        return jnp.einsum("gbd,gbjd->gbj", query, states)
    hidden = jnp.tanh(jnp.einsum("gbjd,gda->gbja", states, concatenation.kernel) + query[:, :, None])
    return jnp.einsum("gbja,ga->gbj", hidden, concatenation.score)
