"""Which extractors made the features of a corpus, and whether those of two corpora can be compared."""

from collections.abc import Mapping
from typing import Any

Identities = Mapping[str, Mapping[str, Any]]
"""Modality -> what identifies its extractor, see `jmer.extract.protocol.Extractor.identity`."""

GIVEN = "given"
"""Field of an identity that says how a command line named the extractor, with paths: no part of what is compared."""
NOT_COMPARED = (GIVEN, "licence", "packages")


def check_identities(found: Any) -> None:
    """Raises ValueError if what was read is no mapping of modalities to identities."""
    if not isinstance(found, dict):
        raise ValueError("extractors is not a mapping of modalities")
    for modality, identity in found.items():
        named = isinstance(identity, dict) and all(isinstance(identity.get(f), str) for f in ("extractor", GIVEN))
        if not named or not isinstance(identity.get("packages", {}), dict):
            raise ValueError(f"extractors does not say which extractor made the {modality} features")


def mismatch(there: Identities, here: Identities, modality: str) -> str:
    """Says how the extractors of a modality's features differ in two corpora.

    Args:
      there: of the corpus that a model was trained on.
      here: of the corpus that it is to predict.
      modality: that the model reads.

    Returns:
      E.g. "extractor 'bert' there, 'hashing' here" or "layer of extractor 'bert': -1 there, -2 here"; empty if they
      agree, or one of them is not known.
    """
    one, other = there.get(modality), here.get(modality)
    if not one or not other:
        return ""
    if one.get("extractor") != other.get("extractor"):
        return f"extractor '{one.get('extractor')}' there, '{other.get('extractor')}' here"
    of_extractor = f"of extractor '{one['extractor']}'"
    for field in dict.fromkeys((*one, *other)):
        if field not in NOT_COMPARED and one.get(field) != other.get(field):
            return f"{field} {of_extractor}: {_shown(one.get(field))} there, {_shown(other.get(field))} here"
    for package, version, found in _packages(one, other):
        if _release(version) != _release(found):
            return f"package {package} {of_extractor}: {version} there, {found} here"
    return ""


def doubts(there: Identities, here: Identities, modality: str) -> list[str]:
    """Returns lines on what cannot be compared, or may differ a little, where `mismatch` finds nothing."""
    one, other = there.get(modality), here.get(modality)
    if not one and not other:
        return []
    if not one or not other:
        unknown = "the corpus" if one else "the training corpus"
        return [f"{modality}: the card of {unknown} does not say which extractor made its features, so they may differ"]
    return [
        f"{modality}: package {package} of extractor '{one['extractor']}' is {version} there, {found} here"
        for package, version, found in _packages(one, other)
        if version != found
    ]


def _packages(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    mine, others = one.get("packages") or {}, other.get("packages") or {}
    return [(name, mine.get(name, "none"), others.get(name, "none")) for name in dict.fromkeys((*mine, *others))]


def _release(version: str) -> list[str]:
    """Returns the parts of a version that say that results may differ, its first two."""
    return version.split(".")[:2]


def _shown(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) > 40 else text
