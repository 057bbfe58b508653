"""A study's stages as jobs of a Slurm cluster: `python -m pipeline.slurm studies/paper/dvc.yaml`."""
