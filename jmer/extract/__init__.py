"""From recordings and transcripts to features: extractors, manifests, and corpora whose cards name the extractors."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ imports
    from jmer.extract.build import extract_corpus

__all__ = ["extract_corpus"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jmer.extract.build import extract_corpus

    return extract_corpus
