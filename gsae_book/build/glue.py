"""A Sphinx extension: a number that a chapter glues with a format is rounded once, from all its digits.

myst-nb formats the text of a record, which has four digits by then, so that 0.27649 would be rounded twice, to 0.277.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes
from myst_nb.core.variables import RetrievalError
from myst_nb.ext.glue.roles import PasteTextRole
from myst_nb.ext.glue.utils import retrieve_glue_data

from gsae_book.runs.recording import METADATA_KEY

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class GlueText(PasteTextRole):
    """``{glue:text}`name:.2f` `` or ``{glue:text}`name:.0%` `` of a recorded number; all else is as myst-nb has it.

    A number with a spread, which has its digits from that, takes no format.
    """

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        name, _, spec = self.text.rpartition(":")
        try:
            metric = retrieve_glue_data(self.document, name).metadata[METADATA_KEY]
        except (RetrievalError, KeyError):
            return super().run()
        if metric["spread"] is not None or isinstance(metric["value"], bool | str):
            return super().run()
        text = format(metric["value"], spec).replace("%", " %")
        node = nodes.inline(text, text, classes=["pasted-text"])
        self.set_source_info(node)
        return [node], []


def setup(app: Sphinx) -> dict[str, bool]:
    """Take the place of myst-nb's role, which its own extension has registered before."""
    app.add_role_to_domain("glue", "text", GlueText(), override=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
