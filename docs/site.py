"""A hook of mkdocs.yml: on the site a link to a file outside docs/ is that file's name, for it is no page there."""

import re

_OUTWARD = re.compile(r"(?<!!)\[([^\]]*)\]\((?:\.\./)+(?!\.\./)([\w./-]+)\)")


def on_page_markdown(markdown: str, *, page, **_) -> str:
    """`[text](../examples/x.py)` on a page of docs/ itself becomes `examples/x.py`."""
    if "/" in page.file.src_uri:  # below docs/, ../ leads to another page
        return markdown
    return _OUTWARD.sub(lambda link: f"`{link[2]}`", markdown)
