"""Networks that others build on or ask, one file each."""
