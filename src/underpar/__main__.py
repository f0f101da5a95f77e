"""`python -m underpar`, which is also what torchrun starts."""

import sys

from underpar.cli import main

sys.exit(main())
