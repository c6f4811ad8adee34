"""A Sphinx extension: a link to a term of the glossary shows the term's explanation to a pointer that rests on it.

The explanation is the link's title, so that it needs neither a script nor the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

GLOSSARY = "book/glossary"


def explanations(glossary: nodes.document) -> dict[str, str]:
    """The text of each term, by the name of its place; the names in the code that it ends with are left out."""
    found = {}
    for item in glossary.findall(nodes.definition_list_item):
        texts = [node.astext() for node in item.findall(nodes.paragraph)]
        text = " ".join(" ".join(texts).split())
        for term in item.findall(nodes.term):
            found |= {name: text[: text.rfind(".") + 1] for name in term["ids"]}
    return found


def setup(app: Sphinx) -> dict[str, bool]:
    """Give links to terms their titles, as each page is about to be written."""

    def explain(app: Sphinx, doctree: nodes.document, docname: str) -> None:
        words = doctree.findall(lambda node: isinstance(node, nodes.Element) and "std-term" in node["classes"])
        links = [word.parent for word in words if isinstance(word.parent, nodes.reference)]
        if links and GLOSSARY in app.env.found_docs:
            known = explanations(app.env.get_doctree(GLOSSARY))
            for link in links:
                place = link.get("refid") or link.get("refuri", "").partition("#")[2]
                if place in known:
                    link["reftitle"] = known[place]

    app.connect("doctree-resolved", explain)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
