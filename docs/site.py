"""A hook of mkdocs.yml: a link to a file outside docs/ becomes that name, for on the site it is no page."""

import re

_OUTWARD = re.compile(r"(?<!!)\[([^\]]*)\]\((?:\.\./)+(?!\.\./)([\w./-]+)\)")


def on_page_markdown(markdown: str, *, page, **_) -> str:
    """`[text](../examples/x.py)` on a page of docs/ itself becomes `examples/x.py`."""
    if "/" in page.file.src_uri:  # below docs/, ../ leads to another page
        return markdown
    return _OUTWARD.sub(lambda link: f"`{link[2]}`", markdown)
