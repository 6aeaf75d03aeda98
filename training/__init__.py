"""One recipe per system: `python -m training.NAME --help`."""
