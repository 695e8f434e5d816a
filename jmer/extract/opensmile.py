"""openSMILE's feature sets, which much of the field's sound features are."""

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jmer.errors import UserError
from jmer.extract.protocol import RATE, Features, Missing, SoundExtractor
from jmer.warning import warn


class Columns(NamedTuple):
    """What a set of openSMILE gives.

    Attributes:
      functionals: number of columns of an utterance.
      descriptors: number of columns of a frame.
      shortest: seconds of sound below which it gives NaN.
    """

    functionals: int
    descriptors: int
    shortest: float


SETS = {
    "IS09": Columns(384, 16, 0.025),
    "IS10": Columns(1582, 38, 0.07),
    "IS11": Columns(4368, 59, 0.07),
    "IS12": Columns(6125, 64, 0.07),
    "IS13": Columns(6373, 65, 0.06),
    "ComParE_2016": Columns(6373, 65, 0.06),
    "GeMAPSv01a": Columns(62, 18, 0.06),
    "GeMAPSv01b": Columns(62, 18, 0.06),
    "eGeMAPSv01a": Columns(88, 23, 0.06),
    "eGeMAPSv01b": Columns(88, 23, 0.06),
    "eGeMAPSv02": Columns(88, 25, 0.06),
    "emobase": Columns(988, 26, 0.04),
}
"""The sets of the package, by the names that it has for them."""

SHORTEST_OF_OTHERS = 0.025
LARGEST = 32767 / 32768
"""Largest sample that 16 bits can hold."""


@dataclasses.dataclass(frozen=True)
class OpenSmile(SoundExtractor):
    """A feature set of openSMILE, such as IS10 (1582 columns) or eGeMAPSv02 (88), from sound of 16 kHz in one channel.

    IS10 is the compatible configuration of openSMILE 3: its jitter and shimmer differ from those of openSMILE 2, with
    which older features were made. openSMILE converts sound to 16 bits and lets what is too loud wrap around, so that a
    clipped peak would become its opposite; it is limited before.

    Attributes:
      feature_set: its name (IS09, IS10, IS11, IS12, IS13, ComParE_2016, GeMAPSv01a, GeMAPSv01b, eGeMAPSv01a,
        eGeMAPSv01b, eGeMAPSv02, emobase), or the path of a configuration file with the hooks of the Python package for
        source and sink, whose levels are called func and lld; files that it includes are not in its identity.
      pooling: functionals, or none for the low-level descriptors of each frame.
    """

    feature_set: str
    pooling: str = "functionals"

    name = "opensmile"
    poolings = ("functionals", "none")
    licence = "audEERING Research License: no commercial use"
    extra = "opensmile"
    imports = ("opensmile",)
    packages = ("opensmile",)

    @property
    def width(self) -> int:
        if self.feature_set in SETS:
            columns = SETS[self.feature_set]
            return columns.descriptors if self.frames else columns.functionals
        return self._smile.num_features

    @property
    def shortest(self) -> float:
        return SETS[self.feature_set].shortest if self.feature_set in SETS else SHORTEST_OF_OTHERS

    @property
    def files(self) -> Sequence[Path]:
        if self.feature_set in SETS:
            return ()
        path = Path(self.feature_set)
        if not path.is_file():
            raise UserError(f"openSMILE has no set '{path}', only {', '.join(SETS)}; and there is no such file")
        return (path,)

    def settings(self) -> dict[str, Any]:
        own = {} if self.feature_set in SETS else {"feature_set": "a configuration file"}
        return super().settings() | own

    def check(self) -> None:
        super().check()
        _say_licence(self.licence)

    def __call__(self, sound: np.ndarray) -> Features:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is too short is said below
            values = self._smile(np.clip(sound, -1, LARGEST), RATE)[0]
        if not np.isfinite(values).all():
            return Missing("openSMILE gives no values, as of sound that is too short")
        return (values.T if self.frames else values[:, 0]).astype(np.float32)

    @functools.cached_property
    def _smile(self) -> Any:
        opensmile = self.require("opensmile")
        level = "lld" if self.frames else "func"
        files = self.files
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it advises against older sets, which are asked for to compare
            if not files:
                return opensmile.Smile(opensmile.FeatureSet[self.feature_set], opensmile.FeatureLevel(level))
            try:
                return opensmile.Smile(str(files[0]), level)
            except Exception as error:  # its own exceptions have no base of their own
                raise UserError(
                    f"{files[0]} is no configuration with a level '{level}' that openSMILE can load ({error}): see "
                    "'custom config file' in the documentation of opensmile-python"
                ) from error


@functools.cache
def _say_licence(licence: str) -> None:
    warn(f"the features of openSMILE are under the {licence}")
