"""Notice a tracking database that lacks models which `refs/` names: then every register stage has to run again.

Writes `{"schema": "kd-registry/1", "generation": n}`; n grows by one when something is lacking. Register stages depend
on this file, their references on content alone, so a rebuilt database costs no training.
"""

import argparse
import json
from pathlib import Path

from contract.shared.durable import write_whole
from contract.shared.parent import end_with_dvc

SCHEMA = "kd-registry/1"


def lacking(refs: Path) -> list[str]:
    """Names of references under `refs` that the registry has no version of."""
    from kd_distill.tracking import client

    found = [json.loads(file.read_text()) for file in sorted(refs.rglob("*.json"))]  # each is written whole
    wanted = {(ref["name"], ref["sha256"]) for ref in found if ref["schema"] == "kd-ref/1"}
    if not wanted:
        return []
    held = {(v.name, v.tags.get("sha256")) for v in client().search_model_versions()}
    return sorted(name for name, _ in wanted - held)


def main() -> None:
    """Compare the references with the registry and write the generation."""
    end_with_dvc()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--refs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    generation = json.loads(arguments.out.read_text())["generation"] if arguments.out.exists() else 1
    if names := lacking(arguments.refs):
        print(f"the registry lacks {', '.join(names)}; they will be registered again")
        generation += 1
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(arguments.out, (json.dumps({"schema": SCHEMA, "generation": generation}) + "\n").encode())


if __name__ == "__main__":
    main()
