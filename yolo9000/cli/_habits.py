"""What users of other YOLO packages type after `yolo9000 detect`, and what it is here: options by other names
and words of the form name=value. Of a call in Python it is yolo9000.habits'; imports no torch."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from wordtree import console

# Their option -> ours, or what does the same. Those that are ours as well, --conf, --iou, are not here.
_OURS = {
    "classes": "--vocabulary (all boxes get one of its names) or --below (the others are left out)",
    "conf-thres": "--threshold",
    "iou-thres": "--nms-iou",
    "img": "--imgsz",
    "img-size": "--imgsz",
    "data": "--names, a file of class names",
    "agnostic-nms": "--nms agnostic",
    "half": "--precision bfloat16",
    "save": "--out FOLDER",
    "project": "--out FOLDER",
    "name": "--out FOLDER",
    "exist-ok": "how it always is: what an earlier run wrote in --out is replaced",
    "nosave": "the same without --out",
    "save-txt": "--json or --json-lines",
    "save-json": "--json or --json-lines",
    "save-conf": "--json or --json-lines",
    "save-crop": "found.crop() in Python",
    "show": "--out FOLDER; in Python found.plot()",
    "view-img": "--out FOLDER; in Python found.plot()",
    "stream": "--json-lines, a line as each picture is done",
    "augment": "a larger --size: pictures are looked at once",
    "verbose": "not needed: nothing but results is printed",
}

# An option as Ultralytics has it.
_SETTING = re.compile(r"([A-Za-z]\w*)=(.*)", re.DOTALL)
# What says there what is to be done: yolo detect predict source=...
_MODE = re.compile(r"predict|(mode|task)=\w*")


class Command(console.Command):
    """A command that tells people of these habits what they mean here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            ours = _OURS.get(_plain(error.option_name))
            if ours is None:
                raise
            raise click.UsageError(f"No such option: {error.option_name}; here it is {ours}.", ctx) from None
        given = [str(picture) for picture in ctx.params.get("pictures", ())]
        if any(self._is_setting(word) and not Path(word).exists() for word in given):
            self._refuse_settings(ctx, typed, given)
        return rest

    def _options(self) -> set[str]:
        return {name for param in self.params for name in param.opts}

    def _repeatable(self) -> set[str]:
        return {name for param in self.params if param.multiple for name in param.opts}

    def _is_setting(self, word: str) -> bool:
        match = _SETTING.fullmatch(word)
        name = _plain(match[1]) if match else ""
        return bool(name) and (name in _OURS or f"--{name}" in self._options())

    def _refuse_settings(self, ctx: click.Context, typed: Sequence[str], given: Sequence[str]) -> NoReturn:
        """Raises click.UsageError that has the words as they are typed here, and what becomes of others.
        typed: the whole line; given: the words of it that are no options."""
        words, reasons = [], []
        places: dict[str, int] = {}  # option -> where in `words` it stands
        for word in typed:
            if word not in given or not (self._is_setting(word) or _MODE.fullmatch(word)):
                words.append(shlex.quote(word))
                continue
            match = _SETTING.fullmatch(word)
            if _MODE.fullmatch(word) or match is None:
                continue
            name, value = match.groups()
            option = f"--{_plain(name)}"
            if value.lower() == "false":
                if option in places:
                    words[places.pop(option)] = ""
                continue
            if option not in self._options():
                reasons.append(f"{name}: {_OURS[_plain(name)]}")
                continue
            if name == "device" and value != "cpu":
                value = "cuda"  # they number them
            said = option if value.lower() == "true" else f"{option} {shlex.quote(value)}"
            if option in places and option not in self._repeatable():
                words[places[option]] = said  # the last one holds, as there
            else:
                places[option] = len(words)
                words.append(said)
        line = " ".join([ctx.command_path, *filter(None, words)])
        raise click.UsageError("; ".join([f"options are typed with two strokes here: {line}", *reasons]), ctx)


def _plain(option: str) -> str:
    """--save_txt -> save-txt."""
    return option.lstrip("-").replace("_", "-").lower()
