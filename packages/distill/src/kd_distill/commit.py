"""Where the code of a run came from.

This file is the same in every package; its source is contract/shared/commit.py.
"""

import os
import subprocess


def provenance() -> dict[str, str]:
    """Where the code came from: git commit, whether the tree was dirty, and the DVC stage, each where there is one."""
    tags = {}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if commit.returncode == 0:
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
        tags["mlflow.source.git.commit"] = commit.stdout.strip()
        tags["git.dirty"] = str(bool(changed.stdout.strip())).lower()
    if stage := os.environ.get("DVC_STAGE"):
        tags["dvc.stage"] = stage
    return tags
