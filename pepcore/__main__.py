"""`python -m pepcore`: the command line, where the environment's `bin` is not on the PATH."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
