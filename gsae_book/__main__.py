"""The command ``gsae``, also as ``python -m gsae_book``: says which extra to install where one is missing."""

import sys


def main() -> None:
    """Run the command, or end with one line and exit code 1 if its packages are not installed."""
    try:
        from gsae_book.app.cli import main as command
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("gsae_lib", "gsae_book"):
            raise
        sys.exit(f"Error: the command needs {error.name}: pip install 'gsae_lib[cli]'")
    command(prog_name="gsae")


if __name__ == "__main__":
    main()
