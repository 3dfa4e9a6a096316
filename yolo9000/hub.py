"""Models in a folder of their own, with a card, here or on the Hugging Face Hub (the extra `hub`). What a
model file is, is modelfile.py's; what stands on the card modelcard.py's.
"""

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wordtree.files import written_whole
from yolo9000.errors import ModelError

if TYPE_CHECKING:
    from typing import Self

    from wordtree import WordTree
    from yolo9000.network import Network

MODEL = "model.safetensors"
CARD = "README.md"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)  # owner/name


class Pretrained:
    """What a Detector is loaded from and given to: `from_pretrained`, `save_pretrained`, `push_to_hub`."""

    net: "Network"
    tree: "WordTree"
    resize: str

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, token: str | None = None, **options: Any
    ) -> "Self":
        """The detector of a folder, as `save_pretrained` or a training run leaves it, or of "owner/name" on
        the Hub; a folder of that name goes first.

        revision: branch, tag or commit there; token: for private models, by default that of the machine's
        login. options: as Detector(...). Only a model file is read, and nothing in it is run. Raises
        ModelError.
        """
        return cls.load(find_model(name, revision, token), **options)

    def save_pretrained(self, folder: str | Path, *, name: str = "", dtype: str = "float32") -> Path:
        """Write the model and its card into a folder, made if it is missing; returns the folder.

        name: how it will be called, for the card. dtype: see save_model. A README.md that was not made here
        is left as it is. Raises ModelError.
        """
        from yolo9000.modelcard import model_card
        from yolo9000.modelfile import save_model

        folder = Path(folder)
        names = self.tree.names if self.net.tree is None else None
        defaults = dict(self.net.defaults)
        if self.resize != defaults.get("resize", "smooth"):  # another one answers otherwise
            defaults["resize"] = self.resize
        save_model(self.net, folder / MODEL, self.net.record, defaults=defaults, dtype=dtype, names=names)
        card = folder / CARD
        if not card.exists() or _is_ours(card):
            with written_whole(card, ModelError) as part:
                part.write_text(model_card(folder / MODEL, name), encoding="utf-8")
        return folder

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool = False,
        revision: str | None = None,
        token: str | None = None,
        message: str = "A YOLO9000 model",
        dtype: str = "float32",
    ) -> str:
        """Put the model and its card on the Hub as "owner/name", made there if it is missing; returns the
        address of the commit. A card there that was not made here is left as it is. Raises ModelError, also
        where huggingface_hub is not installed."""
        if not _NAME.fullmatch(name):
            raise ModelError(f'{name!r}: a model on the Hub is called "owner/name"')
        hub = _hub()
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, name=name, dtype=dtype)
            try:
                api = hub.HfApi(token=token)
                api.create_repo(name, private=private, exist_ok=True)
                there = api.file_exists(name, CARD, revision=revision)
                there = there and not _is_ours(
                    hub.hf_hub_download(name, CARD, revision=revision, token=token)
                )
                info = api.upload_folder(
                    repo_id=name,
                    folder_path=folder,
                    commit_message=message,
                    revision=revision,
                    ignore_patterns=[CARD] if there else None,
                )
            except Exception as error:  # HTTP, network and validation: its errors have no common type
                raise ModelError(f"{name}: cannot be put on the Hub ({_line(error)})") from error
        return str(info.commit_url)


def find_model(name: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """The model file of a folder, a file, or "owner/name" on the Hub, from its cache or fetched. Raises
    ModelError that says where it was looked for."""
    path = Path(name)
    if path.is_dir():
        files = [path / MODEL] if (path / MODEL).is_file() else sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            what = "no" if not files else f"{len(files)} model files and no"
            raise ModelError(f"{path}: {what} {MODEL} in this folder")
        return files[0]
    if path.is_file():
        return path
    if isinstance(name, Path) or not _NAME.fullmatch(name):
        raise ModelError(f'{name}: no such folder, and no name on the Hub ("owner/name")')
    try:
        return Path(_hub().hf_hub_download(name, MODEL, revision=revision, token=token))
    except ModelError:
        raise
    except Exception as error:  # see push_to_hub
        raise ModelError(
            f"{name}: no such folder, and {MODEL} cannot be fetched from the Hub ({_line(error)})"
        ) from error


def _is_ours(card: str | Path) -> bool:
    """Whether a card was made here, so that a newer model's may take its place."""
    from yolo9000.modelcard import MADE

    try:
        return MADE in Path(card).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ModelError("this needs huggingface_hub: pip install 'yolo9000[hub]'") from error
    return huggingface_hub


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
