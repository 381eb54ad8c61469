"""Masking (Han, Yao, Niu, Zhou, Tsang, Zhang & Sugiyama, NeurIPS 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .method import Batch, Epoch, Method, Procedure, Setting, draws, number, whole

MIDDLE, SHARPNESS = 0.05, 0.005  # the paper's tempered sigmoid: what probability counts as a possible mistake
HIDDEN, JUDGES = 50, 20  # units of the generator and of the discriminator, as in the authors' code
CLIP = (-0.01, 0.005)  # of the discriminator's weights, the same
JUDGED = 5  # steps of the discriminator to one of the generator, the same
LEAST = 1e-8


@dataclass(frozen=True)
class Masking(Method):
    """Forward correction by a transition matrix that is learned along, told which mistakes are possible at all.

    A generator draws a matrix S (C, C), rows summing to 1, for each example: a small network of ten normal numbers.
    Network and generator minimise `-log sum_i S[i, y] p_i`; the generator also has to deceive a discriminator that
    compares `sigmoid((S - 0.05) / 0.005)` with the structure, (C, C) of 0 and 1, which is the knowledge that people
    bring in (a Wasserstein game with clipped weights, section 3). The generator begins as the matrix that is
    estimated from a first network, which cross entropy trained for a tenth of the epochs.

    The structure is that of the true transition matrix: an advantage over losses that are not told it.

    Claim, to be seen on the digits with 40% asymmetric noise, where it says that each class is mistaken for one other
    at most: a higher final test accuracy than cross entropy's, and than that of the noise adaptation layer and of
    forward correction by the same estimate, neither of which is told the structure.

    Args:
        step: rate of generator and discriminator (RMSprop). The paper has 1e-5 for 150,000 steps, and runs of the
            digits have 1,000.
        pretrain: steps by which the generator learns the estimate; 10,000 in the authors' code, at a tenth of 1e-3.

    """

    step: float = number(1e-3, 0.0, 1.0)
    pretrain: int = whole(1000, 0, 1_000_000)

    def start(self, setting: Setting) -> Procedure:
        if setting.transition is None or setting.estimate is None:
            raise ValueError("Masking: the true labels are not known here, and with them the structure of their noise")
        procedure = _Masking(self, setting)
        procedure.learn(setting.estimate(), int(self.pretrain))
        return procedure


class _Masking(Procedure):
    structure: Tensor  # (C, C) of 0 and 1

    def __init__(self, method: Masking, setting: Setting) -> None:
        super().__init__()
        assert setting.transition is not None
        self.seed, self.num_classes = setting.seed, setting.num_classes
        squares = self.num_classes**2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.seed)
            self.generator = nn.Sequential(
                *(nn.Linear(self.num_classes, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()),
                nn.Linear(HIDDEN, squares),
            )
            self.discriminator = nn.Sequential(nn.Linear(squares, JUDGES), nn.Sigmoid(), nn.Linear(JUDGES, 1))
        self.register_buffer("structure", (setting.transition > 0).float())
        self.optimizers = {
            name: torch.optim.RMSprop(part.parameters(), lr=method.step)
            for name, part in (("generator", self.generator), ("discriminator", self.discriminator))
        }
        self.draw = draws(setting.seed, 0)

    def groups(self) -> list[dict[str, Any]]:
        return []

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state of the two optimizers, for a checkpoint."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up the state of the two optimizers from a checkpoint."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])

    def matrices(self, count: int) -> Tensor:
        """Draw transition matrices, (count, C, C)."""
        noise = torch.randn(count, self.num_classes, generator=self.draw).to(self.structure.device)
        made: Tensor = self.generator(noise).view(count, self.num_classes, self.num_classes)
        return made.softmax(dim=2)

    def learn(self, estimate: Tensor, steps: int) -> None:
        """Teach the generator to draw the estimate (C, C)."""
        optimizer = torch.optim.RMSprop(self.generator.parameters(), lr=1e-3)
        for _ in range(steps):
            loss = -(estimate * self.matrices(16).clamp(min=LEAST).log()).sum(dim=(1, 2)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def before_epoch(self, epoch: Epoch) -> None:
        self.draw = draws(self.seed, epoch.number)

    def on_batch(self, logits: Tensor, batch: Batch) -> Tensor:
        p = logits.float().softmax(dim=1)
        self._play(p.detach(), batch.labels)
        with torch.no_grad():
            matrices = self.matrices(len(p))
        return self._correct(p, matrices, batch.labels)

    def _play(self, p: Tensor, labels: Tensor) -> None:
        """Take a step of the generator, and the discriminator's."""
        matrices = self.matrices(len(p))
        deceive = self._correct(p, matrices, labels) - self._judge(matrices).mean()
        self._step("generator", deceive)
        for _ in range(JUDGED):
            with torch.no_grad():
                drawn = self.matrices(len(p))
            truth = self.discriminator(self.structure.flatten()).mean()
            self._step("discriminator", self._judge(drawn).mean() - truth)
            with torch.no_grad():
                for parameter in self.discriminator.parameters():
                    parameter.clamp_(*CLIP)

    def _correct(self, p: Tensor, matrices: Tensor, labels: Tensor) -> Tensor:
        """Compute the forward correction's mean loss: p (b, C), matrices (b, C, C), labels (b,)."""
        predicted = torch.einsum("bi,bij->bj", p, matrices).gather(1, labels.unsqueeze(1))
        return -predicted.clamp(min=LEAST).log().mean()

    def _judge(self, matrices: Tensor) -> Tensor:
        """Judge the structures of matrices (b, C, C): (b, 1), high for one like the given structure."""
        judged: Tensor = self.discriminator(((matrices - MIDDLE) / SHARPNESS).sigmoid().flatten(1))
        return judged

    def _step(self, name: str, loss: Tensor) -> None:
        optimizer = self.optimizers[name]
        self.generator.zero_grad()
        self.discriminator.zero_grad()
        loss.backward()
        optimizer.step()
