"""What two or more systems use, one file per kind."""
