"""Systems that say what stands in a picture, and where, one file each."""
