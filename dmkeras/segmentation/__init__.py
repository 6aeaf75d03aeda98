"""Systems that give every pixel a class, one file each, and one that tells how well they did."""
