"""The paper's study at a size that a laptop runs: what stands in the place of the hub and of the data sets."""
