"""`jmer predict RUN INPUT`: predicts recordings, subtitles and dialogues, whose features it makes as for training."""

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jmer
from jmer.cli.actions import set_up
from jmer.cli.flags import STANDARD_INPUT
from jmer.errors import UserError
from jmer.evaluation.html_viewer import PredictedSplit
from jmer.evaluation.prediction_files import write_prediction_files
from jmer.evaluation.prediction_text import prediction_text
from jmer.evaluation.subtitles import Span
from jmer.extract.build import readable
from jmer.extract.cache import Cache
from jmer.extract.manifest import Row
from jmer.extract.prediction import trained_extractors
from jmer.extract.sources import DIALOGUE, rows_of, rows_of_json
from jmer.files import check_new_folder
from jmer.runs.run import Predicting


def predict_input(options: argparse.Namespace, given: Mapping[str, str]) -> int:
    """Predicts an input, shows what is predicted, and writes it if there is a folder for it.

    Args:
      options: parsed flags of `jmer.cli.flags.add_input_flags`, and `workdir` and `out`.
      given: modality -> extractor, where its files have moved.

    Returns:
      The exit status, 1 if an extractor failed for some utterances.

    Raises:
      UserError: if the input cannot be read, or the run cannot predict it.
    """
    rows = _rows(options)
    if options.out:
        check_new_folder(options.out, "for the predictions (--out)")
    loaded = jmer.load_run(options.workdir)
    if isinstance(loaded, jmer.CrossValidation):
        raise UserError(f"{options.workdir} has a run per fold: give the folder of one of them")
    run: Predicting = loaded if isinstance(loaded, jmer.Run) else loaded.ensemble
    extractors = trained_extractors(run.card, run.config.model.modalities, given)
    rows = readable(rows, extractors, skip=options.skip_bad)
    log = set_up()
    cache = Cache(options.cache) if options.cache else None
    name = DIALOGUE if options.input == STANDARD_INPUT else Path(options.input).stem
    found = run.extract(rows, name=name, given=given, cache=cache, jobs=options.jobs, log=log)
    predicted = run.predictor.predict_conversations(found.corpus, "test")
    times = list(_times(rows, [len(conversation) for conversation in predicted.conversations]))
    split = PredictedSplit(predicted.conversations, predicted.predictions, times)
    _show(split, run.card.emotions, log)
    if options.out:
        files = write_prediction_files(options.out, split, predicted.card, {"run": str(options.workdir)})
        log(f"wrote {', '.join(str(path) for path in files)}")
    return 1 if found.failed else 0


def _rows(options: argparse.Namespace) -> list[Row]:
    if options.input != STANDARD_INPUT:
        return rows_of(Path(options.input), options)
    try:
        return rows_of_json(sys.stdin.buffer.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not in UTF-8 (byte {error.start}): give a dialogue as JSON") from error


def _times(rows: Sequence[Row], lengths: Sequence[int]) -> Iterator[list[Span | None]]:
    """Yields where the utterances of each conversation are in their recordings."""
    left = iter(rows)
    for length in lengths:
        chosen = [next(left) for _ in range(length)]
        yield [
            None
            if row.start is None and row.file is None
            else Span(row.start or 0.0, row.end, str(row.file) if row.file else "")
            for row in chosen
        ]


def _show(split: PredictedSplit, emotions: Sequence[str], log: Callable[[str], None]) -> None:
    width = shutil.get_terminal_size((100, 0)).columns
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    log(prediction_text(split, emotions, width, encoding))
