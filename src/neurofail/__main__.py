"""`python -m neurofail`."""

import sys

from neurofail.cli import main

sys.exit(main())
