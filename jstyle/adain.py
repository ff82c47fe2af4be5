"""Adaptive instance normalisation of latents."""

from __future__ import annotations

from .sd.startup import jt


def adain(content: jt.Var, style: jt.Var, eps: float = 1e-5) -> jt.Var:
    """Give `content` the per-channel mean and deviation of `style`.

    content, style: (B, C, H, W), any float dtype; the spatial sizes may differ and either batch
        may be 1. Statistics in float32 over H and W, unbiased variance (as torch.std in the
        original code), deviation sqrt(var + eps), so a constant channel stays finite.
    Returns (B, C, H, W) in content's dtype.
    Raises ValueError if the channel counts differ.
    Source: Huang & Belongie, arXiv:1703.06868; on inverted latents in arXiv:2312.09008, eq. 8.
    """
    if content.shape[1] != style.shape[1]:
        raise ValueError(
            f"content has {content.shape[1]} channels and style {style.shape[1]}; "
            "they must be the same"
        )
    mean_c, std_c = _mean_std(content, eps)
    mean_s, std_s = _mean_std(style, eps)
    return (std_s * (content.float32() - mean_c) / std_c + mean_s).cast(content.dtype)


def _mean_std(x: jt.Var, eps: float) -> tuple[jt.Var, jt.Var]:
    """Each (B, C, 1, 1), float32. Two passes: E[x^2] - E[x]^2 cancels when |mean| >> deviation."""
    flat = x.float32().reshape(x.shape[0], x.shape[1], -1)
    mean = flat.mean(2, keepdims=True)
    centred = flat - mean
    count = max(flat.shape[2] - 1, 1)
    std = ((centred * centred).sum(2, keepdims=True) / count + eps).sqrt()
    return mean.unsqueeze(3), std.unsqueeze(3)
