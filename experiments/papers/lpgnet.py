"""The tables of LPGNet (2025): main results, ablations, the grid of loss weights, F1 per emotion.

Of SDT, which the paper ran again with its own features, only the table per emotion has numbers.
"""

from experiments.papers.declaration import Entry, Printed, Table, scores, with_classes

# Not in the paper's tables; with its modalities.
OTHERS = (
    Entry("concat MLP", "concat_mlp", "text_audio"),
    Entry("DialogueRNN", "dialoguernn", "text_audio"),
    Entry("DialogueGCN", "dialoguegcn", "text_audio"),
    Entry("DialogueCRN", "dialoguecrn", "text_audio"),
    Entry("MMGCN", "mmgcn", "text_audio"),
    Entry("MM-DFN", "mmdfn", "text_audio"),
    Entry("COGMEN", "cogmen", "text_audio"),
    Entry("M3NET", "m3net", "text_audio"),
    Entry("MultiEMO", "multiemo", "text_audio"),
    Entry("GraphSmile", "graphsmile", "text_audio"),
    Entry("LSDGNN", "lsdgnn", "text_audio"),
    Entry("M2FNet-like", "m2fnet_like", "text_audio"),
    Entry("LFVD", "lfvd", "text_audio"),
)
LPGNET = Entry("LPGNet (utterance)", "lpgnet", printed=scores(iemocap4=(87.99, 87.96)))
FRAME = Entry("LPGNet (frame)", "lpgnet", "frame", scores(iemocap4=(83.87, 83.68)))


# They classify utterances one by one, from word pieces and frames.
SINGLE_UTTERANCES = "jmer has models of conversations; this one classifies single utterances"


def _elsewhere(title: str, accuracy: float | None, f1: float | None, absent: str = SINGLE_UTTERANCES) -> Entry:
    return Entry(title, None, printed=scores(iemocap4=(accuracy, f1)), absent=absent)


MAIN = Table(
    source="main results on IEMOCAP, four and six emotions, utterance vectors or frames",
    base="LPGNet (utterance)",
    entries=(
        _elsewhere("GatedxLSTM", None, 75.97),
        _elsewhere("MER-HAN", 74.20, 73.66),
        _elsewhere("MMI-MMER", 77.02, None),
        _elsewhere("MGCMA", 78.87, None),
        _elsewhere("MEP", 80.18, 80.01),
        _elsewhere("Bi-GRU", 80.63, None),
        _elsewhere("MemoCMT", 81.85, None),
        _elsewhere(
            "Linear on emotion2vec",
            81.68,
            80.75,
            "a linear classifier of features: python -m experiments.baselines, on a corpus that has them",
        ),
        _elsewhere("CFIA-Net", 83.37, None),
        Entry("SDT", "sdt", "text_audio", scores(iemocap4=(86.62, None), iemocap6=(67.47, None))),
        *OTHERS,
        FRAME,
        Entry("LPGNet (utterance)", "lpgnet", printed=scores(iemocap4=(87.99, 87.96), iemocap6=(71.78, None))),
    ),
    corpora=("synthetic-iemocap4", "synthetic-iemocap6", "synthetic-iemocap4-frames"),
)

ABLATION = Table(
    source="ablations: modalities and parts",
    base="LPGNet (utterance)",
    entries=(
        Entry("text", "lpgnet", "text", scores(iemocap4=(81.39, 81.19))),
        Entry("audio", "lpgnet", "audio", scores(iemocap4=(84.53, 84.55))),
        Entry("w/o inter attention", "lpgnet", "without_inter", scores(iemocap4=(86.22, 86.26))),
        Entry("w/o intra attention", "lpgnet", "without_intra", scores(iemocap4=(87.03, 86.95))),
        Entry("w/o position-wise FFN", "lpgnet", "without_ffn", scores(iemocap4=(86.87, 86.75))),
        Entry("w/o dual-gated fusion", "lpgnet", "without_dual_gates", scores(iemocap4=(86.62, 86.59))),
        LPGNET,
    ),
    corpora=("synthetic-iemocap4",),
)

GAMMAS = Table(
    source="grid of the loss weights: task, hard labels, soft labels",
    base="1.5, 1, 0.3",
    entries=(
        Entry("1, 1, 1", "lpgnet", "gammas_1_1_1", scores(iemocap4=(87.35, 87.38))),
        Entry("1, 0, 1", "lpgnet", "gammas_1_0_1", scores(iemocap4=(86.36, 86.53))),
        Entry("1, 1, 0", "lpgnet", "gammas_1_1_0", scores(iemocap4=(87.27, 87.26))),
        Entry("1.5, 1, 0", "lpgnet", "gammas_1.5_1_0", scores(iemocap4=(87.59, 87.58))),
        Entry("1.5, 1, 0.3", "lpgnet", printed=scores(iemocap4=(87.99, 87.96))),
    ),
    corpora=("synthetic-iemocap4",),
    figures=("scores",),
)


def _per_emotion(title: str, model: str, variant: str, four: tuple, six: tuple) -> Entry:
    def printed(task: str, values: tuple) -> Printed:
        return with_classes(task, values[:-1], (values[-1], None))

    return Entry(title, model, variant, {"iemocap4": printed("iemocap4", four), "iemocap6": printed("iemocap6", six)})


CLASSES = Table(
    source="F1 per emotion, four and six emotions",
    base="LPGNet (utterance)",
    entries=(
        _per_emotion(
            "SDT",
            "sdt",
            "text_audio",
            (89.72, 86.35, 82.32, 88.15, 86.62),
            (38.59, 78.09, 69.52, 73.53, 70.63, 65.13, 67.47),
        ),
        _per_emotion(
            "LPGNet (utterance)",
            "lpgnet",
            "",
            (92.06, 85.38, 83.99, 86.75, 87.83),
            (51.3, 79.1, 73.99, 72.19, 77.83, 68.59, 71.78),
        ),
    ),
    corpora=("synthetic-iemocap4", "synthetic-iemocap6"),
    classes=True,
    figures=("confusion",),
)

TABLES = {
    "lpgnet_main": MAIN,
    "lpgnet_ablation": ABLATION,
    "lpgnet_gammas": GAMMAS,
    "lpgnet_classes": CLASSES,
}
