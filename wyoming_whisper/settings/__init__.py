"""Options: what there is, how each is read, and where their values come from."""
