"""A packing in several files holds what it holds in one, however often it is killed; patterns, whole sets."""

import json

import pytest

from data_prep import DataError, packing
from data_prep.packing import pack
from data_prep.recipe import Recipe, Source
from data_prep.shards import MOST_SHARDS, find_packed, shard_paths
from data_prep.store import Store
from data_prep.writer import StoreWriter
from tests.data_prep import commands


@pytest.fixture
def recipe(tmp_path, make, tree_file) -> Recipe:
    """Two sources of 17 and 6 pictures, one of the first broken."""
    for name, count in (("a", 17), ("b", 6)):
        for k in range(count):
            path = tmp_path / name / f"n0000000{1 + k % 5}" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"broken" if (name, k) == ("a", 7) else make.picture(220, 200, "PNG", seed=k))
    sources = (Source("a", "folders", "a"), Source("b", "folders", "b"))
    return Recipe(sources, str(tree_file), root=tmp_path)


def contents(path) -> list:
    return [(one.source, one.name, one.image, one.image_labels.tolist()) for one in Store(path)]


@pytest.mark.parametrize("count", [1, 2, 5, 11])
def test_shards_hold_each_sample_once_and_fairly(count, recipe, tmp_path):
    whole = pack(recipe, tmp_path / "x.h5")
    wanted = contents(tmp_path / "x.h5")
    assert len(wanted) == 22
    assert pack(recipe, tmp_path / "y.h5", shards=count).to_dict() == whole.to_dict()
    shards = [contents(path) for path in shard_paths(tmp_path / "y.h5", count)]
    assert sorted(one for shard in shards for one in shard) == sorted(wanted)
    assert max(map(len, shards)) - min(map(len, shards)) <= 2  # one for the division, one for the broken one
    for shard in shards:
        assert shard == [one for one in wanted if one in shard]  # in the order of the whole
    assert sorted(tmp_path.glob("y*")) == shard_paths(tmp_path / "y.h5", count)
    fingerprints = {Store(path).tree_fingerprint for path in tmp_path.glob("*.h5")}
    assert len(fingerprints) == 1


class Killed(BaseException):
    """Like a kill: nothing that cleans up after errors may run on it."""


def test_killed_while_packing_shards_it_goes_on(recipe, tmp_path, monkeypatch):
    wanted = pack(recipe, tmp_path / "whole.h5", shards=2).to_dict()
    monkeypatch.setattr(packing, "AHEAD", 1)
    real, fetched = packing.fetch, []

    def fetch(pictures, name, decode):
        fetched.append(name)
        if len(fetched) == stop:
            raise Killed
        return real(pictures, name, decode)

    monkeypatch.setattr(packing, "fetch", fetch)
    for stop in (21, 5, None):
        fetched.clear()
        if stop:
            with pytest.raises(Killed):
                pack(recipe, tmp_path / "o.h5", shards=2)
            assert not list(tmp_path.glob("o-*.h5"))
        else:
            assert pack(recipe, tmp_path / "o.h5", shards=2).to_dict() == wanted
            assert len(fetched) < 23  # a chunk of 1 MiB, 8 pictures, of the first shard was on the disk
    for ours, theirs in zip(
        shard_paths(tmp_path / "o.h5", 2), shard_paths(tmp_path / "whole.h5", 2), strict=True
    ):
        assert ours.read_bytes() == theirs.read_bytes()
    assert not list(tmp_path.glob("*.partial*"))


def test_more_shards_than_pictures_are_refused(recipe, tmp_path):
    with pytest.raises(DataError, match=r"x-000\d\d-of-00030\.h5: no picture is left"):
        pack(recipe, tmp_path / "x.h5", shards=30)
    for count in (0, MOST_SHARDS + 1):
        with pytest.raises(DataError, match=f"not {count}"):
            pack(recipe, tmp_path / "x.h5", shards=count)
    assert not list(tmp_path.glob("x*"))


def test_the_command_says_what_it_wrote(recipe, tmp_path, tree_file):
    words = ("pack", "--folders", tmp_path / "b", "--tree", tree_file, "--shards", 2)
    result = commands.run(*words, tmp_path / "b.h5")
    assert result.exit_code == 0
    assert result.stdout.endswith(f"wrote {tmp_path / 'b-00000-of-00002.h5'} to b-00001-of-00002.h5\n")
    said = json.loads(commands.run(*words, "--json", tmp_path / "b.h5").stdout)
    assert said["shards"] == [str(path) for path in shard_paths(tmp_path / "b.h5", 2)]
    assert said["sources"]["folders"]["pictures"] == 6 == sum(len(Store(path)) for path in said["shards"])


# Patterns


def test_patterns_find_files_by_name_and_each_once(tmp_path, monkeypatch):
    names = [*(f"a-{k:05d}-of-00003.h5" for k in range(3)), "b.h5", "[c].h5", "a-1.h5"]
    for name in names:
        (tmp_path / name).touch()
    for at in (tmp_path, None):
        if at is None:
            monkeypatch.chdir(tmp_path)

        def put(name, at=at):
            return name if at is None else at / name

        wanted = [put(name) for name in ("b.h5", *names[:3], "[c].h5")]
        found = find_packed([put("b.h5"), put("a-*-of-*.h5"), put("b.h5"), put("[c].h5"), put("a-0000?-of*")])
        assert [str(path) for path in found] == [str(path) for path in wanted]
    assert find_packed(["nothing.h5"])[0].name == "nothing.h5"  # who opens it says that it is not there


def test_commands_take_a_pattern_for_its_files(tmp_path, tree, make):
    for k, path in enumerate(shard_paths(tmp_path / "a.h5", 2)):
        with StoreWriter(path, tree) as writer:
            writer.add(make.sample(f"{k}.jpg", make.picture(seed=k), boxes=1 + k))
    files = shard_paths(tmp_path / "a.h5", 2)
    for command in (["check"], ["stats"], ["anchors", "--k", 1]):
        for words in ([*command, "--json"], command):
            together = commands.run(*words, tmp_path / "a-*.h5")
            assert together.exit_code == 0 and together.stdout == commands.run(*words, *files).stdout
    assert commands.run("check", tmp_path / "a-*.h5").stdout.count("every checksum fits") == 2
    damaged = bytearray(files[0].read_bytes())
    at = damaged.index(make.picture(seed=0)) + 50
    damaged[at] ^= 1
    files[0].write_bytes(damaged)
    for words in (["check", "--json"], ["check"]):  # the other file is looked at all the same
        together, alone = (commands.run(*words, *these) for these in (files, files[:1]))
        assert together.exit_code == alone.exit_code == 1 and together.stderr == alone.stderr
        assert together.stdout == alone.stdout + commands.run(*words, files[1]).stdout
    assert alone.stderr.startswith(f"error: {files[0]}: sample 0 (0.jpg): checksum") and not alone.stdout
    broken, whole = map(json.loads, commands.run("check", "--json", *files).stdout.splitlines())
    assert broken == {"file": str(files[0]), "whole": False, "error": alone.stderr.strip()[len("error: ") :]}
    assert whole["whole"] and whole["file"] == str(files[1])
    assert commands.run("check", files[0], tmp_path / "recipe.toml").exit_code == 2
    files[0].unlink()
    for command in ("check", "stats", "anchors"):
        assert "1 of 2 shards are missing" in str(commands.run(command, tmp_path / "a-*.h5").exception)


def test_half_a_set_of_shards_is_refused(tmp_path):
    for path in shard_paths(tmp_path / "a.h5", 4):
        path.touch()
    assert len(find_packed([tmp_path / "a-*.h5"])) == 4
    with pytest.raises(DataError, match=r"a-\[01\]\*: no file"):
        find_packed([tmp_path / "b" / "a-[01]*"])
    (tmp_path / "a-00002-of-00004.h5").unlink()
    with pytest.raises(DataError, match=r"1 of 4 shards are missing, the first a-00002-of-00004\.h5"):
        find_packed([tmp_path / "a-*.h5"])
    assert len(find_packed(sorted(tmp_path.glob("*.h5")))) == 3  # named one by one they are meant
    for path in shard_paths(tmp_path / "a.h5", 2):
        path.touch()
    with pytest.raises(DataError, match=r"two packings of .*a\.h5, of 2 and of 4; .*a-\*-of-00004\.h5"):
        find_packed([tmp_path / "*.h5"])
    assert len(find_packed([tmp_path / "a-*-of-00002.h5"])) == 2
