"""Tables 2-6 and Figs. 2-4 of LFVD (Zhu and Jiang, 2025)."""

from experiments.papers.declaration import NO_EQUATIONS, Entry, Printed, Table, scores, with_classes

BOTH = ("synthetic-iemocap6", "synthetic-meld")
FULL = {
    "iemocap6": with_classes("iemocap6", (54.69, 85.43, 74.60, 67.65, 79.32, 66.66), (72.98, 72.75)),
    "meld": with_classes("meld", (80.02, 58.61, 19.63, 43.73, 64.45, 27.71, 58.24), (68.32, 67.03)),
}
LFVD = Entry("LFVD", "lfvd", printed=FULL)
MULTIDAG = Entry(
    "MultiDAG",
    "multidag",
    printed={
        "iemocap6": with_classes("iemocap6", (49.65, 81.40, 69.53, 70.33, 71.61, 66.94), (69.11, 69.08)),
        "meld": Printed(64.41, 64.00),
    },
)
# Not in the paper's tables.
OTHERS = (
    Entry("concat MLP", "concat_mlp"),
    Entry("DAG-ERC (text)", "dagerc"),
    Entry("DialogueCRN", "dialoguecrn"),
    Entry("COGMEN", "cogmen"),
    Entry("M3NET", "m3net"),
    Entry("MultiEMO", "multiemo"),
    Entry("SDT", "sdt"),
    Entry("GraphSmile", "graphsmile"),
    Entry("LSDGNN", "lsdgnn"),
    Entry("M2FNet-like", "m2fnet_like"),
)
SDT = next(entry for entry in OTHERS if entry.model == "sdt")


def _row(
    title: str,
    model: str | None,
    task: str,
    values: tuple[float | None, ...],
    total: tuple[float | None, float | None],
    absent: str = "",
) -> Entry:
    return Entry(title, model, printed={task: with_classes(task, values, total)}, absent=absent)


TABLE2 = Table(
    source="Table 2: results on IEMOCAP, F1 per emotion",
    base="LFVD",
    entries=(
        _row("DialogueRNN", "dialoguernn", "iemocap6", (32.20, 80.26, 57.89, 62.82, 73.87, 59.76), (63.52, 62.89)),
        _row("DialogueGCN", "dialoguegcn", "iemocap6", (51.57, 80.48, 57.69, 53.95, 72.81, 57.33), (63.22, 62.89)),
        _row("MMGCN", "mmgcn", "iemocap6", (45.14, 77.16, 64.36, 68.82, 74.71, 61.40), (66.36, 66.26)),
        _row("CTNet", None, "iemocap6", (51.30, 79.90, 65.80, 67.20, 78.70, 58.80), (68.00, 67.50), NO_EQUATIONS),
        _row("MM-DFN", "mmdfn", "iemocap6", (42.22, 78.98, 66.42, 69.77, 75.56, 66.33), (68.21, 68.18)),
        _row("SCMM", None, "iemocap6", (45.37, 78.76, 63.54, 66.05, 76.70, 66.18), (None, 67.53), NO_EQUATIONS),
        _row("CMCF-SRNet", None, "iemocap6", (52.20, 80.90, 68.80, 70.30, 76.70, 61.60), (70.50, 69.60), NO_EQUATIONS),
        _row("AdaIGN", None, "iemocap6", (53.04, 81.47, 71.26, 65.87, 76.34, 67.79), (70.49, 70.74), NO_EQUATIONS),
        MULTIDAG,
        *OTHERS,
        LFVD,
    ),
    corpora=("synthetic-iemocap6",),
    classes=True,
)

TABLE3 = Table(
    source="Table 3: results on MELD, F1 per emotion",
    base="LFVD",
    entries=(
        _row("DialogueRNN", "dialoguernn", "meld", (76.97, 47.69, None, 20.41, 50.92, None, 45.52), (60.31, 57.66)),
        _row("DialogueGCN", "dialoguegcn", "meld", (75.97, 46.05, None, 19.60, 51.20, None, 40.83), (58.62, 56.36)),
        _row("MMGCN", "mmgcn", "meld", (76.33, 48.15, None, 26.74, 53.02, None, 46.09), (60.42, 58.31)),
        _row("CTNet", None, "meld", (77.40, 52.70, 10.00, 32.50, 56.00, 11.20, 44.60), (62.00, 60.50), NO_EQUATIONS),
        _row("MM-DFN", "mmdfn", "meld", (77.76, 50.69, None, 22.93, 54.78, None, 47.82), (62.49, 59.46)),
        _row("SCMM", None, "meld", (None,) * 7, (None, 59.44), NO_EQUATIONS),
        _row("CMCF-SRNet", None, "meld", (None,) * 7, (62.80, 62.30), NO_EQUATIONS),
        _row("AdaIGN", None, "meld", (79.75, 60.53, None, 43.70, 64.54, None, 56.15), (67.62, 66.79), NO_EQUATIONS),
        MULTIDAG,
        *OTHERS,
        LFVD,
    ),
    corpora=("synthetic-meld",),
    classes=True,
)

TABLE4 = Table(
    source="Table 4: modalities and their combinations",
    base="T+A+V",
    entries=(
        Entry("T", "lfvd", "text", scores(iemocap6=(68.87, 67.92), meld=(67.23, 66.45))),
        Entry("V", "lfvd", "visual", scores(iemocap6=(40.12, 37.89), meld=(45.78, 34.67))),
        Entry("A", "lfvd", "audio", scores(iemocap6=(56.03, 54.21), meld=(48.56, 42.34))),
        Entry("T+V", "lfvd", "text_visual", scores(iemocap6=(68.74, 68.89), meld=(67.82, 66.53))),
        Entry("T+A", "lfvd", "text_audio", scores(iemocap6=(70.98, 70.23), meld=(67.91, 66.78))),
        Entry("A+V", "lfvd", "audio_visual", scores(iemocap6=(62.45, 61.87), meld=(49.32, 43.89))),
        Entry("T+A+V", "lfvd", printed=FULL),
    ),
    corpora=BOTH,
)

TABLE5 = Table(
    source="Table 5: components",
    base="LFVD",
    entries=(
        Entry(
            "w/o LFA-Transformer",
            "lfvd",
            "without_lfa_transformer",
            scores(iemocap6=(67.34, 67.52), meld=(67.55, 66.22)),
        ),
        Entry("w/o CEAR", "lfvd", "without_cear", scores(iemocap6=(68.76, 68.94), meld=(68.28, 66.64))),
        Entry("w/o DL", "lfvd", "without_dl", scores(iemocap6=(72.70, 71.91), meld=(68.05, 66.87))),
        Entry("w/o CMVD", "lfvd", "without_cmvd", scores(iemocap6=(71.29, 70.79), meld=(67.78, 66.42))),
        Entry("w/o CMVD-Fusion", "lfvd", "without_cmvd_fusion", scores(iemocap6=(72.03, 71.76), meld=(67.51, 66.56))),
        Entry(
            "w/o CMVD-Distillation",
            "lfvd",
            "without_cmvd_distillation",
            scores(iemocap6=(71.60, 71.04), meld=(67.74, 66.79)),
        ),
        Entry("audio dominant", "lfvd", "dominant_audio", scores(iemocap6=(70.73, 70.32), meld=(68.20, 66.76))),
        Entry("visual dominant", "lfvd", "dominant_visual", scores(iemocap6=(70.61, 69.91), meld=(67.70, 66.37))),
        LFVD,
    ),
    corpora=BOTH,
)

TABLE6 = Table(
    source="Table 6: terms of the loss",
    base="LFVD",
    entries=(
        Entry("w/o L_self", "lfvd", "without_self", scores(iemocap6=(72.77, 72.14), meld=(68.05, 66.93))),
        Entry("w/o L_full", "lfvd", "without_full", scores(iemocap6=(72.09, 71.45), meld=(67.70, 66.74))),
        Entry(
            "w/o L_distillation", "lfvd", "without_distillation", scores(iemocap6=(71.60, 71.04), meld=(67.74, 66.79))
        ),
        Entry("w/o L_all", "lfvd", "without_all", scores(iemocap6=(70.73, 70.77), meld=(68.39, 66.50))),
        LFVD,
    ),
    corpora=BOTH,
)

FIG2 = Table(
    source="Fig. 2: strategies of fusion (the paper draws them and prints no number but LFVD's own)",
    base="KL-weighted",
    entries=(
        Entry("add", "lfvd", "fusion_add"),
        Entry("concat", "lfvd", "fusion_cat"),
        Entry("gate", "lfvd", "fusion_gate"),
        Entry("KL-weighted", "lfvd", printed=FULL),
    ),
    corpora=BOTH,
    figures=("scores",),
)

FIG3 = Table(
    source="Fig. 3: weighted F1 by length of the conversation (its other model, MGLRA, has no public equations)",
    base="LFVD",
    entries=(MULTIDAG, SDT, LFVD),
    corpora=BOTH,
    figures=("lengths",),
)

FIG4 = Table(
    source="Fig. 4: confusion matrix",
    base="LFVD",
    entries=(LFVD,),
    corpora=BOTH,
    classes=True,
    figures=("confusion",),
)

TABLES = {
    "lfvd_table2": TABLE2,
    "lfvd_table3": TABLE3,
    "lfvd_table4": TABLE4,
    "lfvd_table5": TABLE5,
    "lfvd_table6": TABLE6,
    "lfvd_fig2": FIG2,
    "lfvd_fig3": FIG3,
    "lfvd_fig4": FIG4,
}
