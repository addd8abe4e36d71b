"""``python -m cellscan``: the command line of `cellscan.cli`."""

import sys

from cellscan.cli import main

if __name__ == "__main__":
    sys.exit(main())
