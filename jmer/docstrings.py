"""What docstrings say of the attributes of classes."""

import inspect
import re


def attribute_docs(described: object) -> dict[str, str]:
    """Returns name -> text of the entries in the section "Attributes" of a docstring."""
    lines = inspect.cleandoc(getattr(described, "__doc__", None) or "").splitlines()
    if "Attributes:" not in lines:
        return {}
    entries: list[list[str]] = []
    for line in lines[lines.index("Attributes:") + 1 :]:
        if line and not line.startswith(" "):
            break
        if re.match(r" {2}\w", line):
            entries.append([])
        if entries:
            entries[-1].append(line.strip())
    documented = (" ".join(entry).strip().partition(":") for entry in entries)
    return {name.strip(): doc.strip() for names, _, doc in documented for name in names.split(",")}
