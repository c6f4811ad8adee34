"""What of the library its own tests reach: recorded by `make coverage`, shown on the status page."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gsae_book.runs.environment import about
from gsae_book.runs.recording import to_json


def record_coverage(report: Path, path: Path) -> None:
    """Write to ``path`` the shares, in per cent of lines and branches, of each module in a JSON ``report``."""
    found = json.loads(report.read_text(encoding="utf8"))
    shares = {name: file["summary"]["percent_covered"] for name, file in sorted(found["files"].items())}
    content = about() | {
        "total": round(found["totals"]["percent_covered"], 1),
        "modules": {_module(name): round(share, 1) for name, share in shares.items()},
    }
    path.write_text(to_json(content, indent=1) + "\n", encoding="utf8")


def _module(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def coverage_table(path: Path) -> str:
    """Return Markdown for ``book/status.md`` of what ``record_coverage`` wrote; nothing if there is no such file."""
    if not path.is_file():
        return ""
    content = json.loads(path.read_text(encoding="utf8"))
    lines = [
        f"The library's own tests reach {content['total']:.0f} % of its lines and branches"
        f" (measured on {content['date']} at commit {content['commit'] or 'unknown'}).",
        "",
        "| Module | Covered (%) |",
        "| --- | ---: |",
    ]
    return "\n".join(lines + [f"| `{name}` | {share:.0f} |" for name, share in content["modules"].items()]) + "\n"


if __name__ == "__main__":
    record_coverage(Path(sys.argv[1]), Path(sys.argv[2]))
