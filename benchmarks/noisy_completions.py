"""Fine-tuning of a tiny language model where 30% of the completions are wrong: cross entropy, DFT, GCE, IMAE.

    python -m benchmarks.noisy_completions                    run what the stored file lacks, print the table
    python -m benchmarks.noisy_completions --table            print the table alone
    python -m benchmarks.noisy_completions --page docs/language_models.md     and write it there

Everything is made and seeded. A prompt names what to do with a word, such as ``r:fadge=``, and the completion is the
result, ``egdaf.``: copy it, reverse it, sort it, shift its letters by one, turn it by two places, or double its first
letters. A wrong completion is the right one of another word, so that nothing about its form gives it away. A causal
transformer of two blocks is first trained on right completions for a while, then fine-tuned by AdamW on 2,000 others,
12 times over, of which 30% are wrong. Loss and head are ``linear_robust_loss``; prompts are ignored.

Of each rate in RATES, tried on a seed of its own, a loss gets the one whose held-out loss is lowest at the end. The
held-out examples are right and of words that no training has seen. Loss is the negative log-likelihood of a token of
the completion; an answer is right if all of its tokens are the likeliest; memorised are the wrong completions of the
training set that the model gives as they stand.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.noisy_labels.table import markdown_table
from imae_ext import CCE, GCE, IMAE, Formula, linear_robust_loss

BEGIN, END = "<!-- completions:begin -->", "<!-- completions:end -->"
STORED = Path(__file__).parent / "noisy_completions.csv"
LETTERS, LENGTH = "abcdefghijkl", 5
TASKS: dict[str, Callable[[str], str]] = {
    "c": lambda w: w,
    "r": lambda w: w[::-1],
    "s": lambda w: "".join(sorted(w)),
    "n": lambda w: "".join(LETTERS[(LETTERS.index(c) + 1) % len(LETTERS)] for c in w),
    "t": lambda w: w[2:] + w[:2],
    "d": lambda w: w[0] * 2 + w[1] * 2 + w[2],
}
SYMBOLS = LETTERS + "".join(t for t in TASKS if t not in LETTERS) + ":=."
PROMPT, TEXT = LENGTH + 3, 2 * LENGTH + 4  # symbols of a prompt, and of prompt and completion
WRONG = 0.3
LOSSES: dict[str, Formula] = {
    "CCE": CCE(),
    "DFT, GCE(1.0)": GCE(1.0),
    "GCE(0.7)": GCE(0.7),
    "IMAE(8.0)": IMAE(8.0),
}
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
EPOCHS_BEFORE, EPOCHS = 6, 40
SEEDS, SEED_OF_RATES = (0, 1, 2), 100
FIELDS = ("loss", "rate", "seed", "nll", "answers", "memorised", "seconds")


class Data(NamedTuple):
    """Texts of TEXT symbols."""

    base: Tensor  # for the model that is fine-tuned, all right
    train: Tensor
    wrong: Tensor  # which of `train` are
    test: Tensor


class Block(nn.Module):
    """Attention to what came before, and two layers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norms = heads, nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attend, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attend(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.layers(self.norms[1](x))


class Model(nn.Module):
    """Returns the hidden states; the head's weight is that of the symbols."""

    def __init__(self, width: int = 64, blocks: int = 2) -> None:
        super().__init__()
        self.symbols, self.places = nn.Embedding(len(SYMBOLS), width), nn.Embedding(TEXT, width)
        self.blocks, self.norm = nn.Sequential(*(Block(width, 4) for _ in range(blocks))), nn.LayerNorm(width)
        self.head = nn.Linear(width, len(SYMBOLS), bias=False)

    def forward(self, text: Tensor) -> Tensor:
        return self.norm(self.blocks(self.symbols(text) + self.places.weight[: text.shape[1]]))


def text_of(task: str, word: str, answer: str) -> list[int]:
    return [SYMBOLS.index(c) for c in f"{task}:{word}={answer}."]


def data(seed: int, base: int = 2000, train: int = 2000, test: int = 1000) -> Data:
    """Make texts of different words, and give every third or so of the training texts another word's completion."""
    draw = random.Random(seed)
    words: dict[str, None] = {}
    while len(words) < base + train + test:
        words["".join(draw.choices(LETTERS, k=LENGTH))] = None
    asked = [(draw.choice(list(TASKS)), word) for word in words]
    rows = [(task, word, TASKS[task](word)) for task, word in asked]
    for i in draw.sample(range(base, base + train), round(WRONG * train)):
        task, word, right = rows[i]
        while (answer := TASKS[task]("".join(draw.choices(LETTERS, k=LENGTH)))) == right:
            pass
        rows[i] = task, word, answer
    texts = torch.tensor([text_of(*row) for row in rows])
    wrong = torch.tensor([answer != TASKS[task](word) for task, word, answer in rows[base : base + train]])
    return Data(texts[:base], texts[base : base + train], wrong, texts[base + train :])


def train(model: Model, texts: Tensor, formula: Formula, rate: float, epochs: int, seed: int) -> None:
    """Train on the completions; the rate warms up and then falls to 0."""
    size = 64
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    steps = epochs * (len(texts) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(texts), generator=generator)[: len(texts) // size * size].view(-1, size):
            text = texts[rows]
            target = text[:, 1:].clone()
            target[:, : PROMPT - 1] = -100
            optimizer.zero_grad()
            linear_robust_loss(model(text[:, :-1]), model.head.weight, target, formula).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()


@torch.no_grad()
def judge(model: Model, texts: Tensor) -> tuple[float, float]:
    """Return the loss of a token of the completions, and the share of completions that the model itself would give."""
    logits = model.head(model(texts[:, :-1]))[:, PROMPT - 1 :].flatten(0, 1)
    target = texts[:, PROMPT:]
    alike = (logits.argmax(-1).view_as(target) == target).all(1)
    return F.cross_entropy(logits, target.flatten()).item(), alike.double().mean().item()


def base_model(given: Data, seed: int, epochs: int) -> Model:
    torch.manual_seed(seed)
    model = Model()
    train(model, given.base, CCE(), 3e-3, epochs, seed)
    return model


def figures(model: Model, given: Data) -> dict[str, str]:
    nll, answers = judge(model, given.test)
    return {
        "nll": f"{nll:.4f}",
        "answers": f"{answers:.4f}",
        "memorised": f"{judge(model, given.train[given.wrong])[1]:.4f}",
    }


def run(path: Path, seeds: Sequence[int] = SEEDS, epochs: tuple[int, int] = (EPOCHS_BEFORE, EPOCHS)) -> None:
    """Run what the file lacks: every rate on one seed, then the best on the others."""
    done = {(row["loss"], row["rate"], row["seed"]): row for row in read(path)}

    def one(model: Model, given: Data, loss: str, rate: float, seed: int) -> None:
        key = loss, f"{rate:g}", str(seed)
        if key in done:
            return
        begin = time.process_time()
        fine = Model()
        fine.load_state_dict(model.state_dict())
        if rate:
            train(fine, given.train, LOSSES[loss], rate, epochs[1], seed)
        row = dict(zip(FIELDS, key, strict=False)) | figures(fine, given)
        done[key] = row | {"seconds": f"{time.process_time() - begin:.1f}"}
        append(path, done[key])

    for seed in (SEED_OF_RATES, *seeds):
        given = data(seed)
        model = base_model(given, seed, epochs[0])
        one(model, given, "before", 0, seed)
        for loss in LOSSES:
            for rate in RATES if seed == SEED_OF_RATES else [best_rate(list(done.values()), loss)]:
                one(model, given, loss, rate, seed)


def best_rate(rows: Sequence[dict[str, str]], loss: str) -> float:
    tried = [row for row in rows if row["loss"] == loss and row["seed"] == str(SEED_OF_RATES)]
    return float(min(tried, key=lambda row: float(row["nll"]))["rate"])


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, str]) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def table(rows: Sequence[dict[str, str]]) -> str:
    """Show each loss at its rate: mean and standard deviation over the seeds."""
    lines = []
    for loss in ("before", *LOSSES):
        of_seeds = [row for row in rows if row["loss"] == loss and row["seed"] != str(SEED_OF_RATES)]
        cells = [_spread([float(row["nll"]) for row in of_seeds], 3)]
        cells += [_spread([100 * float(row[key]) for row in of_seeds], 1) for key in ("answers", "memorised")]
        rate = "-" if loss == "before" else of_seeds[0]["rate"]
        lines.append(["before fine-tuning" if loss == "before" else loss, rate, *cells])
    return markdown_table(["loss", "rate", "held-out loss", "right answers, %", "wrong ones memorised, %"], lines)


def _spread(values: Sequence[float], digits: int) -> str:
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.noisy_completions", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--results", type=Path, default=STORED, help="CSV file (default: the stored one)")
    parser.add_argument("--table", action="store_true", help="print the table of the results, run nothing")
    parser.add_argument("--page", type=Path, help="Markdown file whose table to write anew")
    options = parser.parse_args(arguments)
    if not options.table:
        torch.set_num_threads(1)
        run(options.results)
    text = table(read(options.results))
    print(text)
    if options.page:
        before, _, after = options.page.read_text(encoding="utf-8").partition(BEGIN)
        options.page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
