"""Configurations: strict keys with near matches, settings on top, bases, and the named ones."""

import dataclasses
from pathlib import Path

import pytest

from yolo9000.config import (
    AugmentConfig,
    TrainConfig,
    find_config,
    from_dict,
    load_config,
    named_configs,
    to_dict,
)
from yolo9000.errors import TrainingError
from yolo9000.settings import read_table

SMALL = """
images = 100
[model]
preset = "tiny_yolov2"
[[data]]
name = "boxes"
share = 1
kind = "boxed"
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_a_file_becomes_frozen_dataclasses_with_defaults(small: Path) -> None:
    config = load_config(small)
    assert config.name == "small" and config.images == 100 and config.data[0].share == 1.0
    assert config.data[0].augment == AugmentConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.batch = 3


def test_plain_data_and_back_is_the_same(small: Path) -> None:
    config = load_config(small, ("input.sizes=[320, 352]", "optimiser.scales.layers=0.1"))
    assert from_dict(TrainConfig, to_dict(config), "here") == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimizer.lr = 1", ["small.toml", "optimizer", "optimiser"]),
        ("optimiser.learning_rate = 1", ["optimiser.learning_rate", "known: ", "lr"]),
        ("optimiser.momentun = 0.9", ["optimiser.momentun", "did you mean momentum"]),
        ("batch = 'many'", ["batch is a whole number", "'many'"]),
        ("batch = true", ["batch is a whole number"]),
        ("batch = 0", ["batch lies from 1"]),
        ("optimiser.lr = nan", ["optimiser.lr is not a number"]),
        ("optimiser.lr = inf", ["optimiser.lr is infinite; give a number"]),
        ("optimiser.scales.layers = inf", ["optimiser.scales.layers is infinite"]),
        ("schedule.steps = [-inf]", ["schedule.steps.0 is infinite"]),
        ("model.arguments.slim = nan", ["model.arguments.slim is not a number"]),
        ("model.arguments.anchors = [[1, inf]]", ["model.arguments.anchors is infinite"]),
        ("loss.object_scale = inf", ["loss.object_scale is infinite"]),
        ("log.checkpoint_seconds = inf", ["log.checkpoint_seconds is infinite; give a number such as 1e9"]),
        ("log.checkpoint_seconds = -1", ["log.checkpoint_seconds lies from 0"]),
        ("epochs = -5.0", ["epochs lies from 0"]),
        ("epochs = inf", ["epochs is infinite"]),
        ("optimiser.lr = -1", ["optimiser.lr lies from 0"]),
        ("optimiser.lr = .5", ["optimiser.lr is a number such as 0.5", "'.5', which is text to TOML"]),
        ("optimiser.nesterov = True", ["optimiser.nesterov is true or false", "text to TOML"]),
        ("optimiser.scales = {layers=-1.0}", ["optimiser.scales of 'layers' lies from 0"]),
        ("schedule.burn_in_power = -4", ["schedule.burn_in_power lies from 0"]),
        ("schedule.factor = -0.1", ["schedule.factor lies from 0"]),
        ("schedule.power = -1", ["schedule.power lies from 0"]),
        ("schedule.final = -1", ["schedule.final lies from 0"]),
        ("seed = -1", ["seed lies from 0"]),
        ("seed = 9223372036854775808", ["seed lies from 0"]),
        ("schedule.name = 'cosin'", ["schedule.name is one of", "did you mean cosine"]),
        ("schedule.steps = [0.9, 0.2]", ["schedule.steps"]),
        ("input.sizes = []", ["input.sizes"]),
        ("input.sizes = 416", ["input.sizes is a list"]),
        ("precision = 'half'", ["precision is one of"]),
        ("model.start = 'x'", ["exactly one of preset, start and cfg"]),
        ("model.data_root = 'x'", ["model.data_root is", "model.cfg"]),
        (
            "model.arguments.tree = 'x'",
            ["model.arguments.tree: a preset is given the tree", "set model.tree"],
        ),
        ("model.trunk_rows = true", ["model.trunk_rows takes", "model.trunk_rows = false"]),
        ("model.fold = true", ["model.fold is for frozen layers", "model.freeze is 0"]),
        ("model.weights = 'x'", ["model.weights is read with model.cfg"]),
    ],
)
def test_mistakes_are_named_with_file_key_and_remedy(small: Path, text: str, words: list[str]) -> None:
    key, _, value = text.partition(" = ")
    with pytest.raises(TrainingError) as error:
        load_config(small, (f"{key}={value}",))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("place", ["start", "cfg"])
@pytest.mark.parametrize(
    ("setting", "off"),
    [
        ("arguments.slim=0.5", "arguments={}"),
        ("stored=labels", 'stored="all"'),
        ("shared_rows=true", "shared_rows=false"),
        ("trunk_rows=true", "trunk_rows=false"),
    ],
)
def test_a_network_that_is_there_already_takes_no_settings_of_a_preset(
    small: Path, place: str, setting: str, off: str
) -> None:
    made = (f"model.{place}=x", "model.preset=", f"model.{setting}")
    with pytest.raises(TrainingError) as error:
        load_config(small, made)
    assert f"that of model.{place} is made already" in str(error.value)
    assert str(error.value).endswith(f"--set model.{off}")
    assert load_config(small, (*made, f"model.{off}")).model.preset == ""


@pytest.mark.parametrize(("length", "other"), [("images=2", "epochs"), ("epochs=2.0", "images")])
def test_a_length_on_top_takes_the_place_of_either(small: Path, length: str, other: str) -> None:
    """On the command line or in a file on top of a base, where the base counts the other way or the same."""
    on_top = small.with_name("top.toml")
    for base in ("yolov2", str(small)):  # that counts epochs, and that counts images
        on_top.write_text(f'base = "{base}"\n{length}')
        for config in (load_config(on_top), load_config(base, (length,))):
            assert getattr(config, length.partition("=")[0]) == 2 and getattr(config, other) == 0
    with pytest.raises(TrainingError, match="exactly one of images and epochs"):
        load_config(small, ("images=2", "epochs=2.0"))


@pytest.mark.parametrize(("length", "other"), [("images = 800", "epochs"), ("epochs = 3.0", "images")])
def test_no_length_on_top_leaves_the_other_one(small: Path, length: str, other: str) -> None:
    """0 takes back what a base says, and is harmless where nothing is to be taken back."""
    alone, both = small.with_name("alone.toml"), small.with_name("both.toml")
    alone.write_text(SMALL.replace("images = 100", length))
    both.write_text(SMALL.replace("images = 100", f"{length}\n{other} = 7"))
    on_top = small.with_name("top.toml")
    wanted = dataclasses.replace(load_config(alone), name="x")
    for base in (alone, both):
        on_top.write_text(f'base = "{base}"\n{other} = 0')
        for config in (load_config(on_top), load_config(base, (f"{other}=0",))):
            assert dataclasses.replace(config, name="x") == wanted


def test_a_part_teaches_something(small: Path) -> None:
    with pytest.raises(TrainingError, match="would teach nothing"):
        load_config(small, ("data.0.names=false", "data.0.ignore_boxes=true"))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "model is missing"),
        ("images = 1\n[model]\npreset='a'\ndata=[]", "data is missing"),
        ("images = 1\ndata = []\n[model]\npreset='a'", "at least one"),
        ("images = 1\ndata = 3\n[model]\npreset='a'", "data is a list"),
        ("images = 1\ndata = [3]\n[model]\npreset='a'", "data.0"),
        ("images = 1\ndata = [{share=0}]\n[model]\npreset='a'", "positive"),
        ("images = 1\ndata = [{share=1, kind='box'}]\n[model]\npreset='a'", "did you mean boxed"),
        ("images = 1\ndata = [{share=1, augment={layout='mosaics'}}]\n[model]\npreset='a'", "mosaic"),
        (
            "images = 1\ndata = [{share=1, augment={layout='resized_crop'}}]\n[model]\npreset='a'",
            "share of the area",
        ),
        ("images = 1\ndata = [{share=1, augment={scale=[2, 1]}}]\n[model]\npreset='a'", "rising pair"),
        (
            "images = 1\nepochs = 3.0\ndata = [{share=1}]\n[model]\npreset='a'",
            "exactly one of images and epochs",
        ),
        ("images = = 1", "not a readable TOML"),
        ("base = 'nowhere'", "named ones are"),
    ],
)
def test_impossible_files(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=word):
        load_config(path)


def test_binary_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match="readable TOML"):
        load_config(path)
    with pytest.raises(TrainingError, match="neither a file nor a named configuration"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(TrainingError, match="did you mean tiny-joint"):
        load_config("tiny-jiont")


def test_settings_reach_parts_by_position_and_name(small: Path) -> None:
    config = load_config(small, ("data.0.share=2.5", "data.boxes.augment.flip=0", "model.preset=yolov2"))
    part = config.data[0]
    assert (part.share, part.augment.flip, config.model.preset) == (2.5, 0.0, "yolov2")


@pytest.mark.parametrize(
    "setting", ["batch", "=3", "data.1.share=2", "data.x.share=2", "batch.size=2", "batch.size.x=2"]
)
def test_settings_that_lead_nowhere(small: Path, setting: str) -> None:
    with pytest.raises(TrainingError):
        load_config(small, (setting,))


def test_a_base_is_merged_key_by_key(tmp_path: Path, small: Path) -> None:
    top = tmp_path / "top.toml"
    top.write_text('base = "small.toml"\nbatch = 8\n[model]\nfreeze = 2\n')
    config = load_config(top)
    assert (config.batch, config.model.preset, config.model.freeze) == (8, "tiny_yolov2", 2)
    assert config.name == "top" and len(config.data) == 1
    loop = tmp_path / "loop.toml"
    loop.write_text('base = "loop.toml"\n')
    with pytest.raises(TrainingError, match="leads back to itself"):
        load_config(loop)


def test_named_configurations_are_sound_and_say_what_they_are() -> None:
    assert named_configs()
    for name in named_configs():
        # What a configuration leaves to the user has to be given before it can be judged.
        model = read_table(find_config(name), find_config).get("model", {})
        of_trunk = model.get("known") or model.get("trunk_rows")
        config = load_config(name, ("model.trunk=x.cfg x.weights",) if of_trunk else ())
        assert config.name == name and config.about, name
