"""Systems that show what a classifier looks at, one file each: maps, patches and pictures for any Keras model."""
