"""The 16 benchmarks in the columns and files of their public data sets."""
