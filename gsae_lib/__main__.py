"""``python -m gsae_lib`` is the command ``gsae``."""

from gsae_lib.cli import main

if __name__ == "__main__":
    main(prog_name="gsae")
