"""Many pictures: in order, equal to one at a time, bad ones told, few in memory, ended whole."""

import io
import threading
import warnings
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from tests.yolo9000.small import picture, small_detector
from yolo9000 import Detector
from yolo9000.device import begun
from yolo9000.errors import ImageError
from yolo9000.pipeline import Behind, outcomes

OPTIONS = {"threshold": 0.3}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(small_detector("stored"), precision="float32")


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [np.asarray(picture(k, 40 + 9 * k, 60 + 5 * k)) for k in range(11)]


def same(one, other) -> None:
    assert one.image_size == other.image_size
    assert one.nodes.tolist() == other.nodes.tolist() and one.paths == other.paths
    for part in ("boxes_xyxy", "scores", "objectness", "probabilities"):
        np.testing.assert_allclose(getattr(one, part), getattr(other, part), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 11, 50])
@pytest.mark.parametrize("lanes", [1, 3])
def test_results_are_those_of_one_picture_at_a_time_in_order(detector, pictures, batch, lanes):
    alone = [detector(one, **OPTIONS) for one in pictures]
    assert sum(map(len, alone)) > 10  # there is something to compare
    found = list(outcomes(detector, pictures, detector.options(**OPTIONS), batch=batch, lanes=lanes))
    assert [id(one.picture) for one in found] == [id(one) for one in pictures]
    for one, other in zip(found, alone, strict=True):
        same(one.found, other)


def test_stream_is_the_detector_called_on_a_list(detector, pictures):
    for one, other in zip(
        detector.stream(iter(pictures), **OPTIONS), detector(pictures, **OPTIONS), strict=True
    ):
        same(one, other)
    sized = list(detector.stream(pictures[:2], size=64, rule="leaf", **OPTIONS))
    for one, other in zip(sized, detector(pictures[:2], size=64, rule="leaf", **OPTIONS), strict=True):
        same(one, other)


def frames_of(kind, pictures, folder):
    """As cameras and PIL's films hand them on: one object with ever other contents."""
    if kind == "PIL":
        first, *rest = [Image.fromarray(one) for one in pictures]
        first.save(folder / "film.tif", save_all=True, append_images=rest)
        return ImageSequence.Iterator(Image.open(folder / "film.tif"))
    buffer = np.empty_like(pictures[0])
    handed_on = {"array": buffer, "tensor": torch.from_numpy(buffer).permute(2, 0, 1), "bytes": bytearray()}

    def filled():
        for one in pictures:
            buffer[:] = one
            if kind == "bytes":
                file = io.BytesIO()
                Image.fromarray(one).save(file, "PNG")
                handed_on["bytes"][:] = file.getvalue()
            yield handed_on[kind]

    return filled()


@pytest.mark.parametrize("kind", ["PIL", "array", "tensor", "bytes"])
def test_a_buffer_may_be_filled_again(detector, tmp_path, kind):
    pictures = [np.asarray(picture(k, 90, 60)) for k in range(9)]
    wanted = [detector(one, **OPTIONS) for one in pictures]
    assert len({len(one) for one in wanted}) > 1
    found = list(detector.stream(frames_of(kind, pictures, tmp_path), batch=2, **OPTIONS))
    for one, other in zip(found, wanted, strict=True):
        same(one, other)


def test_threads_may_read_one_lazily_opened_image(detector, tmp_path):
    Image.fromarray(np.asarray(picture(0, 1500, 1000))).save(tmp_path / "large.png")
    (wanted,) = detector([tmp_path / "large.png"], **OPTIONS)
    for _ in range(3):
        opened = Image.open(tmp_path / "large.png")
        for one in outcomes(detector, [opened] * 6, detector.options(**OPTIONS), batch=1, lanes=6):
            same(one.found, wanted)


def test_one_picture_is_a_stream_of_one(detector, pictures, tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(pictures[0]).save(file)
    wanted = detector(pictures[0], **OPTIONS)
    for single in (file, str(file), file.read_bytes(), Image.open(file), pictures[0]):
        (found,) = detector.stream(single, **OPTIONS)
        same(found, wanted)
    (found,) = detector.stream(source=file, conf=OPTIONS["threshold"])
    same(found, wanted)


def test_nothing_and_impossible_options(detector):
    assert list(detector.stream([])) == []
    with pytest.raises(TypeError, match="which pictures"):
        detector.stream()
    with pytest.raises(TypeError, match="did you mean 'threshold'"):
        detector.stream([], treshold=0.3)
    with pytest.raises(TypeError, match="did you mean 'threshold'"):
        detector.options(treshold=0.3)
    with pytest.raises(ValueError, match="rule"):
        detector.stream([], rule="guess")
    with pytest.raises(ValueError, match="multiple"):
        detector.stream([], size=33)
    with pytest.raises(ValueError, match="at least 1"):
        detector.stream([], batch=0)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.booleans(), max_size=12), st.integers(1, 5), st.integers(1, 3))
def test_bad_pictures_are_told_in_their_place(detector, pictures, good, batch, lanes):
    given = [pictures[k % len(pictures)] if ok else b"no picture %d" % k for k, ok in enumerate(good)]
    found = list(outcomes(detector, given, detector.options(**OPTIONS), batch=batch, lanes=lanes))
    assert [one.error is None for one in found] == good
    for one, asked in zip(found, given, strict=True):
        assert one.picture is asked
        assert (one.found is None) != (one.error is None)


def test_without_on_error_a_bad_picture_raises_at_its_turn(detector, pictures):
    stream = detector.stream([pictures[0], pictures[1], b"bad", pictures[2]], batch=2)
    assert next(stream).image_size and next(stream).image_size
    with pytest.raises(ImageError, match="not a picture"):
        next(stream)
    told = []
    found = detector.stream([b"bad", pictures[0], b""], on_error=lambda one, error: told.append((one, error)))
    assert len(list(found)) == 1
    assert [one for one, _ in told] == [b"bad", b""] and all(isinstance(e, ImageError) for _, e in told)


def test_a_source_that_fails_does_so_after_the_results_of_what_it_gave(detector, pictures):
    def source():
        yield from pictures[:5]
        raise OSError("the disk is gone")

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        for one in outcomes(detector, source(), detector.options(), batch=2, lanes=2):
            found.append(one)  # what came before the error counts
    assert len(found) == 5


def test_a_bug_is_not_taken_for_a_bad_picture(detector, pictures, monkeypatch):
    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(detector, "answers", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        list(detector.stream(pictures))


@pytest.mark.parametrize("batch", [1, 2])
def test_few_pictures_are_in_memory(detector, batch):
    """No more than `lanes * depth` batches are asked for ahead, and nothing holds on to a picture."""
    alive: list[weakref.ref] = []

    def source():
        for k in range(40):
            one = np.array(picture(k % 3, 30, 30))
            alive.append(weakref.ref(one))
            yield one
            del one

    taken, most = 0, 0
    for _ in outcomes(detector, source(), detector.options(), batch=batch, lanes=2, depth=2):
        taken += 1
        assert len(alive) <= taken + 5 * batch  # 4 batches begun, and the one whose results are being taken
        most = max(most, sum(ref() is not None for ref in alive))
    assert taken == 40
    assert most <= 6 * batch


def test_an_interruption_ends_the_threads_and_asks_for_no_more(detector, pictures):
    asked = 0

    def source():
        nonlocal asked
        for k in range(1000):
            asked += 1
            yield pictures[k % 3]

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        for k, _ in enumerate(outcomes(detector, source(), detector.options(), lanes=2)):
            if k == 3:
                raise KeyboardInterrupt
    assert asked < 20
    assert threading.active_count() == before

    def interrupted():
        yield from pictures[:3]
        raise KeyboardInterrupt  # Ctrl-C while the next picture is waited for

    with pytest.raises(KeyboardInterrupt):
        list(outcomes(detector, interrupted(), detector.options(), lanes=2))
    assert threading.active_count() == before


def test_lanes_leave_the_number_of_threads_as_it_was(detector, pictures):
    """Of the calling thread, and of one that begins while a stream runs, then and later."""
    before, seen, ended = torch.get_num_threads(), [], threading.Event()

    def another():
        seen.append(torch.get_num_threads())
        assert ended.wait(60)
        seen.append(torch.get_num_threads())

    torch.set_num_threads(3)
    try:
        stream = outcomes(detector, pictures, detector.options(), lanes=2)
        next(stream)
        thread = threading.Thread(target=another)
        thread.start()
        stream.close()
        ended.set()
        thread.join()
        assert [torch.get_num_threads(), *seen] == [3, 3, 3]
    finally:
        torch.set_num_threads(before)


def test_lanes_that_the_system_grants_no_threads_for(monkeypatch):
    """Those that have begun do not wait for the others for ever."""
    before, start = threading.active_count(), threading.Thread.start

    def scarce(thread):
        if thread.name == "lane_2":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    with pytest.raises(RuntimeError, match="can't start"):
        begun(3, "lane", 1)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "count, batch, lanes", [(2, None, 2), (3, None, 3), (11, None, 6), (11, 8, 2), (5, 8, 1)]
)
def test_a_list_of_pictures_is_run_in_lanes_that_share_the_threads(
    detector, pictures, count, batch, lanes, monkeypatch
):
    expected = [detector(one, **OPTIONS) for one in pictures[:count]]
    fit, seen = detector.fit, []

    def noted(*given):
        seen.append((threading.get_ident(), torch.get_num_threads()))
        return fit(*given)

    monkeypatch.setattr(detector, "fit", noted)
    before, active = torch.get_num_threads(), threading.active_count()
    torch.set_num_threads(6)
    try:
        for one, other in zip(detector(pictures[:count], batch=batch, **OPTIONS), expected, strict=True):
            same(one, other)
        assert threading.get_ident() not in {thread for thread, _ in seen}
        assert {threads for _, threads in seen} == {6 // lanes} and torch.get_num_threads() == 6
        with pytest.raises(ImageError) as held:
            detector([*pictures[:count], b"bad", *pictures], **OPTIONS)
        # The error is held, the lanes are not.
        assert torch.get_num_threads() == 6 and threading.active_count() == active and held.value
    finally:
        torch.set_num_threads(before)


def test_as_on_a_gpu_threads_read_for_one_lane(detector, pictures, monkeypatch):
    readers = set()
    fit = detector.fit

    class Elsewhere:
        type = "cuda"

    def noted(*given):
        readers.add(threading.current_thread().name)
        return fit(*given)

    options = detector.options(**OPTIONS)
    alone = [detector(one, **OPTIONS) for one in pictures]
    monkeypatch.setattr(detector, "fit", noted)
    proxy = type("Proxy", (), {"device": Elsewhere, "fit": noted, "answers": detector.answers})
    found = list(outcomes(proxy, [*pictures, b"bad"], options, batch=4))
    assert found.pop().error is not None
    for one, other in zip(found, alone, strict=True):
        same(one.found, other)
    assert readers and all(name.startswith("reading") for name in readers)


def test_work_behind_keeps_order_and_bounds():
    gate, begun = threading.Event(), []

    def work(k: int) -> int:
        begun.append(k)
        gate.wait(10)
        return k

    with Behind(workers=2, depth=3) as behind:
        for k in range(3):
            behind.put(work, k)
            assert list(behind.due()) == []  # nothing must be waited for yet
        gate.set()
        found = []
        for k in range(3, 20):
            behind.put(work, k)
            found += behind.due()
        assert found == list(range(17))
        assert list(behind.due(rest=True)) == [17, 18, 19]


def test_work_behind_that_fails_is_told_and_the_rest_given_up():
    done = []

    def work(k: int) -> int:
        if k == 2:
            raise ImageError("a full disk")
        done.append(k)
        return k

    with pytest.raises(ImageError, match="a full disk"), Behind(workers=1, depth=1) as behind:
        for k in range(100):
            behind.put(work, k)
            list(behind.due())
    assert len(done) < 6


def test_warnings_are_as_before_when_many_threads_have_read(detector, tmp_path):
    """warnings.catch_warnings of several threads would restore each other's filters."""
    files = [tmp_path / f"{k}.jpg" for k in range(24)]
    for k, file in enumerate(files):
        picture(k, 200, 150).save(file)
    before = list(warnings.filters)
    assert len(list(outcomes(detector, files, detector.options(), lanes=4))) == 24
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", UserWarning, stacklevel=1)
