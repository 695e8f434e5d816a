"""Features of the speaker's face: a network of one's own, applied to the face in each picture."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jmer.errors import UserError
from jmer.extract.hashes import sha256_of_file
from jmer.extract.networks import FORMATS, Network, network_files, open_network
from jmer.extract.protocol import Box, Features, Missing, Noted, PictureExtractor, Pictures

CASCADE = "haarcascade_frontalface_default.xml"
DETECTORS = ("haar", "dlib", "box")
SEVERAL_FACES = "pictures have several faces, of which the largest was taken"

_HOG_SIDE = 80
"""Pixels of the smallest faces that dlib's detector knows; in a picture of twice the size, it finds smaller ones."""
_SCALE_STEP = 1.1
_NEIGHBOURS = 5
_IMAGENET = 255 * np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
_SCALES = {"-1..1": (127.5, 127.5), "0..1": (0.0, 255.0), "0..255": (0.0, 1.0)}


@dataclasses.dataclass(frozen=True)
class Faces(PictureExtractor):
    """What a network in a .tflite or .onnx file makes of the speaker's face, averaged over the pictures.

    The face is where the manifest's box is or, without one, the largest face of each picture, which need not be the
    speaker's where several people are seen. A picture without a face is passed over; an utterance without any has no
    features (they are missing, not zeros). The face is cut out as a square with a margin, made as large as the
    network's input `[1, H, W, C]` or `[1, C, H, W]` says, grey for C = 1, red-green-blue for C = 3. A map `[H, W, C]`
    inside the network is averaged over H and W.

    On the 342 columns of published feature files (MMGCN's and those that follow it): by their width and their authors'
    other work, they are the vector before the classifier of a DenseNet (depth 100, growth 12) trained on FER+, for
    grey faces of 64 x 64 pixels minus the mean over the standard deviation of the corpus, zeros where no face was
    found. Its weights were not published, so no program can make those columns again, this one included; a DenseNet
    of torchvision is another network. Who has trained such a network exports it to ONNX and gives it here, with
    `scale=MEAN/SD`.

    Attributes:
      model: the network's file.
      detector: what finds faces: haar (a cascade in OpenCV 4), dlib (its HOG detector, which misses faces below 40
        pixels; pip install dlib-bin) or box (nothing: only the manifest's boxes).
      tensor: name of the tensor to take, e.g. of the layer before the classifier; empty = the network's output.
      pooling: mean (over the pictures) or none (a frame per picture with a face).
      fps: pictures per second.
      margin: what is added to a face on each side, as a share of its side.
      smallest: side of the smallest faces to find, as a share of the picture's height.
      scale: what the network takes: -1..1, 0..1, 0..255, imagenet (its mean and deviation per colour), or MEAN/SD of
        pixels between 0 and 255.
    """

    model: Path
    detector: str = "haar"
    tensor: str = ""
    pooling: str = "mean"
    fps: float = 5.0
    margin: float = 0.1
    smallest: float = 0.1
    scale: str = "-1..1"

    name = "faces"
    licence = "the network's own; of the detectors Apache-2.0 (OpenCV's cascade) and Boost (dlib)"
    extra = "faces"
    imports = ("cv2",)

    def __post_init__(self):
        super().__post_init__()
        if self.model.suffix not in FORMATS:
            raise ValueError(f"{self.model} is no file of a network: expected one in {' or '.join(FORMATS)}")
        if self.detector not in DETECTORS:
            raise ValueError(f"detector is '{self.detector}': expected {', '.join(DETECTORS)}")
        if not 0 < self.fps <= 1000 or not 0 <= self.margin <= 2 or not 0 < self.smallest <= 1:
            raise ValueError("expected 0 < fps <= 1000, 0 <= margin <= 2 and 0 < smallest <= 1")
        _mean_and_deviation(self.scale)

    @property
    def pictures_per_second(self) -> float:
        return self.fps

    @functools.cached_property
    def width(self) -> int:
        height, width, channels = self._size
        size = (1, channels, height, width) if self._channels_first else (1, height, width, channels)
        return len(self._averaged(self._network.trial(size)))

    @property
    def files(self) -> Sequence[Path]:
        return network_files(self.model)

    def settings(self) -> dict[str, Any]:
        cascade = {"cascade_sha256": sha256_of_file(self._cascade)} if self.detector == "haar" else {}
        return super().settings() | cascade

    def versions(self) -> dict[str, str]:
        detector = {"dlib": self._dlib.__version__} if self.detector == "dlib" else {}
        return {"opencv": self._cv2.__version__, **detector, **self._network.versions}

    def __call__(self, pictures: Pictures) -> Features | Noted:
        if self.detector == "box" and pictures.box is None:
            return Missing("no box of a face")
        vectors, crowded = [], 0
        for image in pictures.images:
            faces = [pictures.box] if pictures.box else self._faces(image)
            if faces and _overlaps(faces[0], image):
                vectors.append(self._vector(self._face(image, faces[0])))
            crowded += len(faces) > 1
        if not vectors:
            count = f"{len(pictures.images)} picture{'s' if len(pictures.images) > 1 else ''}"
            return Missing(f"the box of the face is outside of {count}" if pictures.box else f"no face in {count}")
        features = np.stack(vectors) if self.frames else np.mean(vectors, axis=0)
        return Noted(features, SEVERAL_FACES, crowded) if crowded else features

    def _faces(self, image: np.ndarray) -> list[Box]:
        """Returns the faces of a picture, the largest first."""
        grey = self._cv2.cvtColor(image, self._cv2.COLOR_RGB2GRAY)
        smallest = self.smallest * grey.shape[0]
        found = [box for box in self._detect(grey, smallest) if max(box.width, box.height) >= smallest]
        return sorted(found, key=lambda box: (box.width * box.height, box), reverse=True)

    @functools.cached_property
    def _detect(self) -> Callable[[np.ndarray, float], list[Box]]:
        """What finds the faces of a grey picture that have at least a size."""
        if self.detector == "dlib":
            hog = self._dlib.get_frontal_face_detector()
            return lambda grey, smallest: [
                Box(one.left(), one.top(), one.width(), one.height()) for one in hog(grey, int(smallest < _HOG_SIDE))
            ]
        cascade = self._cv2.CascadeClassifier(str(self._cascade))

        def detect(grey: np.ndarray, smallest: float) -> list[Box]:
            side = max(1, round(smallest))
            found = cascade.detectMultiScale(grey, _SCALE_STEP, _NEIGHBOURS, minSize=(side, side))
            return [Box(*map(float, one)) for one in found]

        return detect

    def _face(self, image: np.ndarray, box: Box) -> np.ndarray:
        """Returns a face, as a square that the picture's edges continue, in the size and colours of the network."""
        side = max(box.width, box.height) * (1 + 2 * self.margin)
        ranges = []
        for start, length, limit in ((box.y, box.height, image.shape[0]), (box.x, box.width, image.shape[1])):
            first = round(start + (length - side) / 2)
            ranges.append(np.arange(first, first + max(1, round(side))).clip(0, limit - 1))
        face = image[np.ix_(*ranges)]
        height, width, channels = self._size
        method = self._cv2.INTER_AREA if len(ranges[0]) > min(height, width) else self._cv2.INTER_LINEAR
        face = self._cv2.resize(face, (width, height), interpolation=method)
        return self._cv2.cvtColor(face, self._cv2.COLOR_RGB2GRAY)[..., None] if channels == 1 else face

    def _vector(self, face: np.ndarray) -> np.ndarray:
        """Returns what the network makes of a face `[H, W, C]`."""
        mean, deviation = _mean_and_deviation(self.scale)
        values = ((face.astype(np.float32) - mean) / deviation)[None]
        values = values.transpose(0, 3, 1, 2) if self._channels_first else values
        return self._averaged(self._network.runs(np.ascontiguousarray(values, np.float32)))

    def _averaged(self, result: np.ndarray) -> np.ndarray:
        """Returns the vector that a map has on average, or the vector itself."""
        result = result[0] if result.ndim > 1 else result
        kept = 0 if self._channels_first else result.ndim - 1
        return result.mean(axis=tuple(axis for axis in range(result.ndim) if axis != kept), dtype=np.float32)

    @functools.cached_property
    def _network(self) -> Network:
        return open_network(self.model, self.tensor)

    @property
    def _channels_first(self) -> bool:
        return self._network.shape[-1] not in (1, 3)

    @functools.cached_property
    def _size(self) -> tuple[int, int, int]:
        """Height, width and number of colours of the network's input."""
        batch, *axes = self._network.shape
        sizes = [size for size in axes if size is not None]
        if len(sizes) == 3 and self._channels_first:
            sizes = [*sizes[1:], sizes[0]]
        if batch not in (1, None) or len(axes) != 3 or len(sizes) != 3 or sizes[2] not in (1, 3):
            raise UserError(
                f"{self.model} takes an array {self._network.shown_shape()}: expected one picture, [1, H, W, C] or "
                f"[1, C, H, W] with a fixed height and width and 1 or 3 colours"
            )
        height, width, channels = sizes
        if channels == 1 and self.scale == "imagenet":
            raise UserError(f"{self.model} takes grey pictures: scale=imagenet is for red, green and blue")
        return height, width, channels

    @functools.cached_property
    def _cv2(self) -> ModuleType:
        cv2 = self.require("cv2")
        cv2.setNumThreads(1)
        return cv2

    @property
    def _cascade(self) -> Path:
        folder = getattr(getattr(self._cv2, "data", None), "haarcascades", "")
        path = Path(folder) / CASCADE
        if not hasattr(self._cv2, "CascadeClassifier") or not path.is_file():
            raise UserError(
                f"extractor 'faces' with detector=haar needs OpenCV 4: {self._cv2.__version__} is without cascades: "
                f"pip install 'opencv-python-headless>=4.10,<5', or choose detector=dlib or detector=box"
            )
        return path

    @functools.cached_property
    def _dlib(self) -> ModuleType:
        try:
            import dlib
        except ImportError as error:
            raise UserError(
                "extractor 'faces' with detector=dlib needs the package dlib, which is not installed: pip install "
                "dlib-bin, or choose detector=haar"
            ) from error
        return dlib


def _mean_and_deviation(scale: str) -> tuple[np.ndarray | float, np.ndarray | float]:
    """Returns what is subtracted from pixels, and what they are then divided by. Raises ValueError."""
    if scale == "imagenet":
        return _IMAGENET[0], _IMAGENET[1]
    if scale in _SCALES:
        return _SCALES[scale]
    mean, _, deviation = scale.partition("/")
    try:
        values = float(mean), float(deviation)
    except ValueError:
        values = 0.0, 0.0
    if not (np.isfinite(values[0]) and 0 < values[1] < np.inf):
        raise ValueError(f"scale is '{scale}': expected {', '.join(_SCALES)}, imagenet, or MEAN/SD such as 131.1/47.9")
    return values


def _overlaps(box: Box, image: np.ndarray) -> bool:
    height, width = image.shape[:2]
    return box.x < width and box.y < height and box.x + box.width > 0 and box.y + box.height > 0
