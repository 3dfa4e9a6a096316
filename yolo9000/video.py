"""Films and cameras by OpenCV (the extra `video`): frames in, as uint8 arrays (H, W, 3), RGB; frames with
boxes out. A film gives every frame; a camera gives the newest, and those nobody was free for are dropped.

Detecting on them is pipeline.py's, as on any pictures."""

import os
import re
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from wordtree.files import check_target
from yolo9000.errors import ImageError
from yolo9000.images import MAX_PIXELS

# What names of films end in -> the codec that OpenCV's wheels can write into such a file. MPEG-4's are small
# and play anywhere; Motion JPEG is what every reader of .avi knows.
CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
SUFFIXES = frozenset(CODECS) | {".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts"}

# Frames a second where a film or camera does not say: television's.
_RATE = 25.0
_FASTEST = 1000.0

# A stream that says nothing for so long is gone; OpenCV alone would wait half a minute.
_PATIENCE_MS = 10_000


class Capture(Protocol):
    """What is used of cv2.VideoCapture."""

    def read(self) -> tuple[bool, Any]: ...
    def get(self, which: int) -> float: ...
    def release(self) -> None: ...


class Film:
    """The frames of a film file, each once, in order: an iterator, which goes on where it was.

    Attributes: path, rate (frames a second, the mean where it changes), size ((width, height) of the first
    frame), expected (how many frames the file claims, 0 where it does not), seconds (of each frame given so
    far when it is shown, from the first on). Raises ImageError for a file that is none, cannot be decoded or
    has no frame.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ImageError(f"{path}: no such film")
        cv2 = opencv()
        # The full path and one reader: a bare name may look like a URL, a camera or a series of pictures.
        self._capture: Capture = cv2.VideoCapture(str(self.path.resolve()), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise ImageError(f"{path}: not a film that OpenCV can read")
        self.rate = _rate(self._capture, cv2)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.expected = int(count) if 0 < count < 2**31 else 0
        width, height = (self._capture.get(k) for k in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MAX_PIXELS:
            self.close()
            raise ImageError(
                f"{path}: frames of {width:.0f} x {height:.0f} pixels are more than {MAX_PIXELS:,}"
            )
        good, first = self._capture.read()
        if not good or first is None:
            self.close()
            raise ImageError(f"{path}: a film without a frame that can be decoded")
        self._first: Any = first
        self.size = (first.shape[1], first.shape[0])
        self._place = cv2.CAP_PROP_POS_MSEC
        self._began = self._capture.get(self._place)
        self.seconds = array("d")

    def __iter__(self) -> "Film":
        return self

    def __next__(self) -> np.ndarray:
        frame, self._first = self._first, None
        if frame is None:
            good, frame = self._capture.read()
            if not good:
                self.close()
                raise StopIteration
        self.seconds.append(self._seconds())
        return _to_rgb(frame)

    def _seconds(self) -> float:
        """When the frame read last is shown; by the rate where the file says nothing that can be."""
        if not self.seconds:
            return 0.0
        said = (self._capture.get(self._place) - self._began) / 1000
        after = self.seconds[-1]
        return said if np.isfinite(said) and said > after else after + 1 / self.rate

    def close(self) -> None:
        self._capture.release()


class Camera:
    """The newest frame of a live source each time one is asked for; a frame that was replaced before
    anybody asked is dropped, so that what is shown is never old.

    source: an index of OpenCV's (0: the first camera), the address of a stream (rtsp://...), or anything
    with cv2.VideoCapture's read, get and release. Attributes: rate (frames a second), size ((width, height)),
    dropped (frames nobody saw). A thread reads until `close`, or until the source ends; then iteration ends.
    Raises ImageError for a camera that is not there or gives nothing; iterating does, after the newest frame,
    where the source raised something while it was read.
    """

    def __init__(self, source: int | str | Capture) -> None:
        cv2 = opencv()
        if isinstance(source, str):
            waits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
            words = [word for wait in waits for word in (wait, _PATIENCE_MS)]
            self._capture: Capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, words)
        else:
            self._capture = cv2.VideoCapture(source) if isinstance(source, int) else source
        self.rate = _rate(self._capture, cv2)
        good, first = self._capture.read()
        if not good or first is None:
            self._capture.release()
            raise ImageError(f"{_called(source)} is not there or gives no picture")
        self.size = (first.shape[1], first.shape[0])
        self.dropped = 0
        self._newest: Any = first
        self._ended = self._closed = False
        self._name = _called(source)
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._ended)
                if self._newest is None:
                    break
                frame, self._newest = self._newest, None
            yield _to_rgb(frame)
        error = self._failure
        if error is not None and not self._closed:
            raise ImageError(f"{self._name} failed ({str(error) or type(error).__name__})") from error

    def close(self) -> None:
        """Let the camera go; iteration ends."""
        with self._changed:
            self._closed = self._ended = True
            self._newest = None
            self._changed.notify_all()
        self._thread.join(timeout=5)  # a driver may hang in its read
        self._capture.release()

    def _read(self) -> None:
        good = True
        try:
            while good and not self._closed:
                good, frame = self._capture.read()
                with self._changed:
                    if good and not self._closed:
                        self.dropped += self._newest is not None
                        self._newest = frame
                        self._changed.notify_all()
        except Exception as error:  # a driver's own, whatever that is
            self._failure = error
        finally:
            with self._changed:  # else who waits for a frame waits for ever
                self._ended = True
                self._changed.notify_all()


class Recorder:
    """Writes frames into a film, whole or not at all: as a context, `path` appears when it is left without
    an error (or `keep` was called), and an older file stays until then.

    size: (width, height); rate: frames a second. Raises ImageError for a suffix that is none of CODECS and
    where a file cannot be written.
    """

    def __init__(self, path: str | Path, size: tuple[int, int], rate: float) -> None:
        self.path, self.size, self.rate = Path(path), size, rate
        self.frames = 0
        self._keep = False
        suffix = self.path.suffix.lower()
        if suffix not in CODECS:
            raise ImageError(f"{path}: films are written as {', '.join(CODECS)}")
        check_target(self.path, ImageError)
        # OpenCV chooses the container by the end of the name.
        self._part = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{suffix}")
        cv2 = opencv()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._part.touch()
        except OSError as error:
            raise ImageError(f"{path}: cannot be written ({error.strerror or error})") from error
        self._writer = cv2.VideoWriter(
            str(self._part.resolve()), cv2.VideoWriter.fourcc(*CODECS[suffix]), rate, size
        )
        if not self._writer.isOpened():
            self._part.unlink(missing_ok=True)
            raise ImageError(f"{path}: OpenCV cannot write such a film of {size[0]} x {size[1]} pixels")

    def write(self, frame: np.ndarray, seconds: float | None = None) -> None:
        """Append a frame, uint8 (H, W, 3), RGB. seconds: when it was seen, from the beginning: it is repeated
        until then, so that a film of dropped frames runs at the speed of life."""
        if (frame.shape[1], frame.shape[0]) != self.size:
            raise ImageError(
                f"{self.path}: a frame of {frame.shape[1]} x {frame.shape[0]} among those of {self.size}"
            )
        times = 1 if seconds is None else max(1, int(seconds * self.rate) + 1 - self.frames)
        for _ in range(times):
            self._writer.write(frame[:, :, ::-1])
        self.frames += times

    def keep(self) -> None:
        """Keep what was written so far, however the context is left."""
        self._keep = True

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._writer.release()
        try:
            if (kind is None or self._keep) and self.frames:
                self._check()
                self._part.replace(self.path)
        except OSError as error:
            raise ImageError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        finally:
            self._part.unlink(missing_ok=True)

    def _check(self) -> None:
        """OpenCV does not say that a disk was full; the film then lacks frames, or the index at its end."""
        cv2 = opencv()
        written = cv2.VideoCapture(str(self._part.resolve()), cv2.CAP_FFMPEG)
        try:
            if not written.isOpened() or written.get(cv2.CAP_PROP_FRAME_COUNT) < self.frames:
                raise ImageError(f"{self.path}: cannot be written whole; is the disk full?")
        finally:
            written.release()


def opencv() -> ModuleType:
    """The module cv2. Raises ImageError where it is not installed."""
    # Its decoder's remarks on odd files go past everything to stderr; what matters comes as an error of ours.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        import cv2
    except ImportError as error:
        raise ImageError("films and cameras need OpenCV: pip install 'yolo9000[video]'") from error
    return cv2


def _called(source: "int | str | Capture") -> str:
    """A camera in a message: an address without the name and password that may stand in it."""
    if isinstance(source, int):
        return f"camera {source}"
    if isinstance(source, str):
        return "the stream " + re.sub(r"//[^/]*@", "//", source)
    return "the camera"


def _rate(capture: Capture, cv2: ModuleType) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS)
    return float(rate) if 0 < rate <= _FASTEST else _RATE  # NaN and 0: it does not say


def _to_rgb(frame: np.ndarray) -> np.ndarray:
    """OpenCV's BGR, or grey, to RGB."""
    if frame.ndim == 2:
        return np.repeat(frame[:, :, None], 3, axis=2)
    return np.ascontiguousarray(frame[:, :, 2::-1])
