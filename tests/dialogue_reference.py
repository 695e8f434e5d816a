"""DialogueRNN's recurrence in float64 NumPy, one conversation and one utterance at a time."""

import numpy as np
from reference import gru_cell, softmax


def scores(p, kind, history, u):
    """What each of the states `[j, d_g]` is worth to an utterance."""
    if kind == "dot":
        return history @ u
    kernel = p["kernel"]
    if kind == "simple":
        return history @ kernel[:, 0]
    if kind == "concat":
        return np.array([(np.tanh(np.concatenate([g, u]) @ kernel) @ p["score"]).item() for g in history])
    return history @ (u @ kernel + p.get("bias", 0))


def dropped(kind, t):
    """Nothing is."""
    return np.ones((9, 1)) if kind == "listeners" else 1.0


def emotions(p, name, x, speakers, *, kind="general", listener=False, scale=dropped):
    """One direction: `x` `[n, D]` in the order in which it is read -> `[n, d_e]`; `scale` multiplies new states."""
    attention = {key.removeprefix(f"{name}_attention_"): p[key] for key in p if key.startswith(f"{name}_attention_")}
    d_g, d_p, d_e = (p[f"{name}_{gru}_state_kernel"].shape[0] for gru in ("global", "party", "emotion"))
    parties = np.zeros((max(speakers) + 1, d_p))
    history, g, e, states = np.zeros((0, d_g)), np.zeros(d_g), np.zeros(d_e), []
    for t, (u, s) in enumerate(zip(x, speakers, strict=True)):
        g = gru_cell(p, f"{name}_global", np.concatenate([u, parties[s]]), g) * scale("state", t)
        c = softmax(scores(attention, kind, history, u)) @ history if t else np.zeros(d_g)
        before = parties.copy()
        parties[s] = gru_cell(p, f"{name}_party", np.concatenate([u, c]), before[s]) * scale("party", t)
        for other in set(speakers) - {s} if listener else ():
            message = np.concatenate([u, parties[s]])
            parties[other] = gru_cell(p, f"{name}_listener", message, before[other]) * scale("listeners", t)[other]
        history = np.concatenate([history, g[None]])
        e = gru_cell(p, f"{name}_emotion", parties[s], e) * scale("emotion", t)
        states.append(e)
    return np.stack(states)
