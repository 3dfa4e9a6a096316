"""Counters, gauges and histograms in Prometheus' text form, version 0.0.4.

For one process and one event loop: nothing is locked. Names and help texts are here, so that one place tells
what is measured."""

from bisect import bisect_left
from collections.abc import Callable, Iterator

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# A picture takes some hundredths of a second, a slow sender half a minute.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32)


class Counter:
    """Counts by the values of its labels."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...] = ()) -> None:
        self.name, self.text, self.labels = name, text, labels
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, *values: str, by: float = 1.0) -> None:
        self._values[values] = self._values.get(values, 0.0) + by

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.text, "counter")
        for values, count in sorted(self._values.items()):
            yield f"{self.name}{_labels(self.labels, values)} {count:g}"


class Gauge:
    """What a function says at the moment of asking."""

    def __init__(self, name: str, text: str, value: Callable[[], float]) -> None:
        self.name, self.text, self.value = name, text, value

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.text, "gauge")
        yield f"{self.name} {self.value():g}"


class Histogram:
    """How many observations were at most so large."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...]) -> None:
        self.name, self.text, self.bounds = name, text, bounds
        self._counts, self._sum = [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self._sum += value

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.text, "histogram")
        total = 0
        for bound, count in zip((*self.bounds, None), self._counts, strict=True):
            total += count
            yield f'{self.name}_bucket{{le="{"+Inf" if bound is None else format(bound, "g")}"}} {total}'
        yield f"{self.name}_sum {self._sum:.9g}"
        yield f"{self.name}_count {total}"


class Metrics:
    """All that the server measures."""

    def __init__(self) -> None:
        self.requests = Counter(
            "yolo9000_requests_total", "Requests answered, by route and status.", ("route", "status")
        )
        self.pictures = Counter("yolo9000_pictures_total", "Pictures answered.")
        self.request_seconds = Histogram(
            "yolo9000_request_seconds", "From the head of a request to its answer.", _SECONDS
        )
        self.decode_seconds = Histogram(
            "yolo9000_decode_seconds", "Waiting for a decoder and decoding one picture.", _SECONDS
        )
        self.network_seconds = Histogram(
            "yolo9000_network_seconds", "One batch through network, descent and suppression.", _SECONDS
        )
        self.batch_size = Histogram(
            "yolo9000_batch_pictures", "Pictures that went through the network together.", _SIZES
        )
        self.gauges: list[Gauge] = []

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        self.gauges.append(Gauge(name, text, value))

    def text(self) -> str:
        parts = (
            self.requests,
            self.pictures,
            self.request_seconds,
            self.decode_seconds,
            self.network_seconds,
            self.batch_size,
            *self.gauges,
        )
        return "".join(f"{line}\n" for part in parts for line in part.lines())


def _head(name: str, text: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True)) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
