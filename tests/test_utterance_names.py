"""Names of utterances tell conversation, position and speaker as the public corpora write them."""

import pytest

from jmer.data.readers.utterance_names import Place, grouped, place_of, places


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("Ses01F_impro01_F000", Place("Ses01F_impro01", None, "Ses01_F")),
        ("Ses05M_script01_1b_M012", Place("Ses05M_script01_1b", None, "Ses05_M")),
        ("Ses03M_impro05a_MXX0", Place("Ses03M_impro05a", None, "Ses03_M")),
        ("dia12_utt3", Place("dia12", 3, None)),
        ("-3g5yACwYnA$_$10", Place("-3g5yACwYnA", 10, None)),
        ("video_0001$_$0004", Place("video_0001", 4, None)),
        ("a_1[7]", Place("a_1", 7, None)),
        ("03bSnISJMiM_11", Place("03bSnISJMiM", 11, None)),
        ("hello", None),
        ("_", None),
    ],
)
def test_place(name, place):
    assert place_of(name) == place


def test_utterances_are_in_the_order_of_their_numbers_or_of_the_file():
    names = ["b[10]", "a[1]", "b[9]", "Ses01F_impro01_M001", "Ses01F_impro01_F000"]
    assert grouped(places("a.pkl", names, alone=False)) == {"b": [2, 0], "a": [1], "Ses01F_impro01": [3, 4]}
    assert grouped(places("a.pkl", names, alone=True)) == {name: [row] for row, name in enumerate(names)}
