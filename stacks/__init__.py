"""The AWS resources of neve, one module per capability."""
