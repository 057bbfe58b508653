"""The data sets of a study: what they are, where they come from, whether they are there and whole."""
