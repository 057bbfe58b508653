"""The study's stages on real data: what is prepared, which commands run, what came out."""
