"""The names that the command line knows, apart from what they stand for: `--help` must not wait for torch.

What each stands for is in the table named beside it; a test holds them together.
"""

from __future__ import annotations

# data.load.DATASETS
DATASETS = (
    *("digits", "digit-pairs", "fashion-mnist", "cifar10", "cifar100", "clothing1m", "animal10n", "food101n"),
    *("webvision", "mini-webvision", "mini-imagenet", "tiny-imagenet", "mars", "folder", "list"),
)
# Their labels are taken for the truth.
CLEAN = ("digits", "digit-pairs", "fashion-mnist", "cifar10", "cifar100", "tiny-imagenet")
IN_MEMORY = ("digits", "digit-pairs", "fashion-mnist", "cifar10", "cifar100")  # the others are image files
OWN_VALIDATION = ("digits", "digit-pairs", "clothing1m", "food101n")  # parts of their own
WITH_SPLITS = ("webvision", "mini-webvision", "mini-imagenet")  # published with several lists to train on
OWN = ("folder", "list")  # your own images

NETWORKS = ("mlp", "small", "resnet8", "resnet20", "resnet44", "resnet56", "resnet50")  # networks.NETWORKS

MADE = ("symmetric", "asymmetric")  # noise.make
NOISES = ("none", *MADE, "file")

AUGMENTATIONS = ("none", "pad-crop", "pad-crop-flip", "crop-flip")  # augment.KINDS
WITHOUT_IMAGES = ("digits", "digit-pairs")  # read as numbers
SCHEDULES = ("constant", "step", "cosine")  # training.SCHEDULES
OPTIMIZERS = ("sgd", "adamw")  # training.OPTIMIZERS
TARGETS = ("majority", "share")  # of several annotators
RATES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # that search.choose chooses among, and its seeds
SEARCH_SEEDS = (1001, 1002, 1003)

# losses.catalogue and losses.parameter_names
LOSSES = (
    "CCE(), MAE(), MSE(), GCE(q=0.7), IMAE(T=8, eps=1e-08), DM(beta=8, lambd=0.5, eps=1e-08), RCE(A=9.21034), "
    "SCE(alpha=0.1, beta=1), Focal(gamma=2), TaylorCE(t=2), AGCE(a=1, q=2), AUL(a=1.5, q=0.9), AEL(a=2.5), "
    "LabelSmoothing(eps=0.1), NCE(), BootstrapHard(beta=0.8), BootstrapSoft(beta=0.95), Forward(estimated=False), "
    "Backward(estimated=False), NoiseAdaptation(eps=0.1), ELR(lambd=3, beta=0.7), "
    "JointOptimization(alpha=1.2, beta=0.8, begin=0.35, retrain=0.4), CoTeaching(forget=0, gradual=10), "
    "SOP(rate_u=10, rate_v=10), D2L(k=20, window=5, warm=5), Masking(step=0.001, pretrain=1000), "
    "Bilevel(parts=8, mu=0.01)"
)
PARAMETERS = (
    *("q", "T", "eps", "beta", "lambd", "A", "alpha", "gamma", "t", "a"),
    *("begin", "retrain", "forget", "gradual", "rate_u", "rate_v", "k", "window", "warm", "step", "pretrain"),
    *("parts", "mu"),
)

CUTOFF = 0.5  # of the probability below which a label is suspect: more than all other classes together speak against it
FOLDS = 5  # networks that rank a folder, each trained without another fifth of it
