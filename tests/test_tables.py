"""Tables for papers hold names as text, never as commands."""

import pytest

from experiments import tables

HOSTILE = {
    r"\input{x} \write18{y}": r"\textbackslash input\{x\} \textbackslash write18\{y\}",
    "{ } ^ ~ a": r"\{ \} \textasciicircum \space \textasciitilde \space a",
    r"a\\b": r"a\textbackslash \textbackslash b",
    "& % $ # _": r"\& \% \$ \# \_",
    "Zoë ± 日本": "Zoë ± 日本",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_in_latex_wherever_they_are(name):
    escaped = HOSTILE[name]
    rows = [{name: name, "score": "1"}]
    lines = tables.latex(rows, caption=f"On {name}", label=f"tab:a_b-{name}").splitlines()
    assert f"{escaped} & score \\\\" in lines and f"{escaped} & 1 \\\\" in lines
    assert rf"\caption{{On {escaped}}}" in lines
    (label,) = (line for line in lines if line.startswith(r"\label"))
    assert label.startswith(r"\label{tab:a_b-") and not set(label[7:-1]) & set("\\{}%#~^&$ ")
