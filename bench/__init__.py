"""Measurements: `make bench`, or `python -m bench --only a`."""

import sys

from neve_local.cloud import PROJECT

# The functions' modules (write_archive, collect) lie at the top of what is deployed, in no package.
sys.path.append(str(PROJECT / "lambdas"))
