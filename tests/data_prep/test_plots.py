"""Charts: heights are those of the values."""

import numpy as np
from click.testing import CliRunner
from PIL import Image

from data_prep.cli import cli
from data_prep.plots import bars, curves, line
from data_prep.writer import StoreWriter


def test_bars_are_as_high_as_their_values():
    pixels = np.asarray(bars("t", ["a", "b", "c"], [4, 2, 0])).astype(int)
    blue = (pixels == (70, 120, 190)).all(axis=2)
    # The middle of each bar: the axes leave 70 pixels left and 20 right of 720.
    heights = [blue[:, 70 + 105 + 210 * k].sum() for k in range(3)]
    assert abs(heights[0] - 2 * heights[1]) <= 2
    assert heights[2] <= 1
    assert bars("none", [], []).size == line("none", [], []).size


def test_curves_are_where_their_points_are():
    pixels = np.asarray(curves("t", "x", "y", {"a": [(0.0, 1.0)], "b": [(0.5, 0.5), (1.0, 0.0)]})).astype(int)
    red, blue = ((pixels[:, 100:] == colour).all(axis=2) for colour in ((200, 60, 40), (70, 120, 190)))
    # Axes from x = 70 to 700 and y = 300 (0) to 40 (1): the middle of b's line lies at 3/4 of x, 1/4 of y.
    assert blue[234:237, 541 - 100 : 544 - 100].any()
    assert not red[:200].any()  # its only point lies at the left edge
    left = (pixels[36:44, 66:74] == (200, 60, 40)).all(axis=2)
    assert left.any()
    assert curves("none", "x", "y", {}).size == curves("one", "x", "y", {"a": [(2.0, 0.0)]}).size


def test_commands_draw(tmp_path, tree, make):
    with StoreWriter(tmp_path / "s.h5", tree) as writer:
        for k in range(3):
            writer.add(make.sample(name=f"{k}.jpg", boxes=2))
    for command in ("anchors", "stats"):
        done = CliRunner().invoke(cli, [command, str(tmp_path / "s.h5"), "--plot", str(tmp_path / "p.png")])
        assert done.exit_code == 0, done.output
        with Image.open(tmp_path / "p.png") as picture:
            assert picture.width == 720
            assert np.asarray(picture).std() > 1
        (tmp_path / "p.png").unlink()
        packed = (tmp_path / "s.h5").read_bytes()
        done = CliRunner().invoke(cli, [command, str(tmp_path / "s.h5"), "--plot", str(tmp_path / "s.h5")])
        assert "named .png" in str(done.exception) and (tmp_path / "s.h5").read_bytes() == packed
