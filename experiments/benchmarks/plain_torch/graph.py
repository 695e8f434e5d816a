"""Graphs of utterances in PyTorch, edge by edge: a list of edges, built in loops, and layers that gather along it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Edges(NamedTuple):
    """The edges between the utterances of a batch, which are numbered without padding.

    source, target and relation are int64 `[E]`; shares is what was taken of each edge, `[E]`, or None.
    """

    source: Tensor
    target: Tensor
    relation: Tensor
    shares: Tensor | None


def window_edges(
    lengths: list[int],
    speakers: Tensor,
    *,
    past: int,
    future: int,
    num_speakers: int,
    share: Callable[[int, int, int], Tensor] | None = None,
) -> Edges:
    """Links each utterance, as a source, to those in the window around it; none crosses a conversation's border.

    Args:
      lengths: of the conversations.
      speakers: int32 `[B, T]`.
      past, future: earlier and later utterances in a window.
      num_speakers: S of the relations 2 (S source's speaker + target's speaker) + [source >= target].
      share: (conversation, source, target) -> what to take of an edge; None = nothing.
    """
    sources, targets, relations, shares, before = [], [], [], [], 0
    for b, length in enumerate(lengths):
        for source in range(length):
            for target in range(max(source - past, 0), min(source + future, length - 1) + 1):
                sources.append(before + source)
                targets.append(before + target)
                pair = num_speakers * speakers[b, source].item() + speakers[b, target].item()
                relations.append(2 * pair + int(source >= target))
                if share is not None:
                    shares.append(share(b, source, target))
        before += length
    source, target, relation = (torch.tensor(x, device=speakers.device) for x in (sources, targets, relations))
    return Edges(source, target, relation, torch.stack(shares) if shares else None)


def summed(values: Tensor, target: Tensor, count: int) -> Tensor:
    """Adds up the values of edges `[E, ...]` at their targets, `[count, ...]`."""
    return values.new_zeros(count, *values.shape[1:]).index_add(0, target, values)
