"""Where the files of a hub's data set lie: its commit, paths, sizes and digests, asked of huggingface_hub."""

import os
from collections.abc import Iterable
from fnmatch import fnmatch

from pipeline.data.download import Remote
from pipeline.data.errors import DataError, GatedError


def listed(repo: str, revision: str | None, patterns: Iterable[str]) -> tuple[str, dict[str, Remote]]:
    """The commit, and the files whose path one of `patterns` fits. Asking is what permits the network here.

    `HF_ENDPOINT` names another hub than the public one, `HF_TOKEN` who asks.

    Raises:
        GatedError: If its terms have to be accepted first.
        DataError: If there is no such data set, or a pattern fits none of its files.
    """
    os.environ["HF_HUB_OFFLINE"] = "0"
    from huggingface_hub import HfApi, errors, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    page = f"{endpoint}/datasets/{repo}"
    try:
        info = HfApi(endpoint=endpoint).dataset_info(repo, revision=revision, files_metadata=True)
    except errors.GatedRepoError:
        raise GatedError(
            f"{repo} is gated. Accept its terms at {page} and set HF_TOKEN to a token of that account."
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        wanted = f"{repo}@{revision}" if revision else repo
        raise DataError(f"{wanted}: no such data set at {endpoint}, or not without HF_TOKEN.") from None
    except (errors.HTTPError, OSError) as error:
        raise DataError(f"{repo}: {endpoint} does not answer as expected: {str(error).splitlines()[0]}") from None
    commit, headers = str(info.sha), dict(build_hf_headers())
    files = {}
    for file in info.siblings or []:
        if any(fnmatch(file.rfilename, pattern) for pattern in patterns):
            url = hf_hub_url(repo, file.rfilename, repo_type="dataset", revision=commit, endpoint=endpoint)
            files[file.rfilename] = Remote(url, file.size, file.lfs.sha256 if file.lfs else None, headers, page)
    if idle := [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in files)]:
        raise DataError(f"{repo}@{commit[:8]} has no {', '.join(idle)}. Does data.yaml name the right files?")
    return commit, files
