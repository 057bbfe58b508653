"""Linear CKA as a loss: the same geometry between samples, whatever the widths."""

from jaxtyping import Float
from torch import Tensor


def cka(x: Float[Tensor, "*k n d"], y: Float[Tensor, "*k n w"], *, debiased: bool = True) -> Float[Tensor, "*k"]:
    """HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)) with linear kernels.

    Args:
        x: Features of n samples; leading axes are cases of their own.
        y: Other features of the same samples.
        debiased: Song's unbiased HSIC (n of 4 and more). The biased one is near 1 for noise where n < d.

    Returns:
        At most about 1: 1 for equal geometry; the biased one is in [0, 1], the debiased one about 0 for noise, and
        sometimes below.

    Raises:
        ValueError: If there are fewer than four samples.

    Source: Kornblith et al., ICML 2019; Song et al., JMLR 2012, equation 5 (with centred features its sums shrink to
    the ones here).
    """
    if x.shape[-2] < 4:
        raise ValueError(f"CKA compares samples with one another: expected 4 and more, got {x.shape[-2]}.")
    x, y = x - x.mean(dim=-2, keepdim=True), y - y.mean(dim=-2, keepdim=True)
    hsic = _debiased_hsic if debiased else _product
    return hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt()


def cka_distance(x: Float[Tensor, "*k n d"], y: Float[Tensor, "*k n w"]) -> Float[Tensor, ""]:
    """Mean of 1 - debiased `cka`, in about [0, 1]. No gradient reaches `y`.

    Over embeddings the samples are the batch; over patch tokens they are the places of one image, averaged over images.
    """
    return (1 - cka(x, y.detach())).mean()


def _product(x: Tensor, y: Tensor) -> Tensor:
    """The squared norm of x^T y, by whichever of (d, w) and (n, n) is the smaller matrix."""
    if x.shape[-2] < min(x.shape[-1], y.shape[-1]):
        return (x @ x.mT * (y @ y.mT)).sum(dim=(-2, -1))
    return (x.mT @ y).square().sum(dim=(-2, -1))


def _debiased_hsic(x: Tensor, y: Tensor) -> Tensor:
    n = x.shape[-2]
    k, m = x.square().sum(dim=-1), y.square().sum(dim=-1)  # the diagonals that the unbiased estimator leaves out
    own = (k * m).sum(dim=-1) * (n / (n - 2))
    both = k.sum(dim=-1) * m.sum(dim=-1) / ((n - 1) * (n - 2))
    return (_product(x, y) - own + both) / (n * (n - 3))
