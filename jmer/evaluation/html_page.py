"""Self-contained HTML pages: one file that refers to no other and runs no script but its own."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from jmer.evaluation.colours import emotion_colours
from jmer.evaluation.markdown import percent
from jmer.evaluation.plots import STYLES

TEMPLATES = Path(__file__).parent / "templates"


def render_page(template: str, *, emotions: Sequence[str], **values: Any) -> str:
    """Returns a page.

    Args:
      template: file in `templates` that extends `page.html`.
      emotions: names of the emotions, which get colours.
      values: what else the template names.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = percent
    environment.policies["json.dumps_kwargs"] = {
        "ensure_ascii": False,
        "separators": (",", ":"),
        "allow_nan": False,
    }
    script = (TEMPLATES / "viewer.js").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        colours=[colour for colour, _ in STYLES],
        emotion_colours=emotion_colours(emotions),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # The page's security policy admits this script only, so that no text of the corpus can run as one.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **values,
    )
