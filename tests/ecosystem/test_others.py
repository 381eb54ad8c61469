"""Lightning, timm, skorch and ONNX: the page's examples inside the real packages."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from documented import document

import imae_ext


@pytest.mark.parametrize(
    ("heading", "code"), document.examples(), ids=[f"{k}-{h}" for k, (h, _) in enumerate(document.examples())]
)
def test_documented_example_runs(heading, code):
    """All of them, with no package missing."""
    assert document.run(code)["imae_ext"] is imae_ext


def rows(N: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(N, 16, generator=generator)
    return features, (features @ torch.randn(16, 10, generator=generator)).argmax(1)


def test_lightning_trains_and_stops_by_accuracy(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")
    features, target = rows()

    class Watched(document.example("Lightning")["Classifier"]):
        def validation_step(self, batch, batch_idx):
            self.log("val_accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean())

    torch.manual_seed(0)
    module = Watched()
    assert isinstance(module, lightning.LightningModule)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(features, target), batch_size=16)
    stop = lightning.callbacks.EarlyStopping(monitor="val_accuracy", mode="max", patience=10)
    trainer = lightning.Trainer(
        max_epochs=60, callbacks=[stop], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, loader, loader)
    assert stop.best_score > 0.4


def test_timm_trains_a_step():
    import timm.data
    import timm.optim

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=10)
    criterion = document.example("timm")["train_loss_fn"]
    optimizer = timm.optim.create_optimizer_v2(model, opt="sgd", lr=0.01)
    images, target = torch.randn(4, 3, 32, 32), torch.randint(10, (4,))
    losses = []
    for _ in range(6):
        loss = criterion(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    mixed, soft = timm.data.Mixup(mixup_alpha=1.0, num_classes=10)(images, target)
    criterion(model(mixed), soft).backward()  # probabilities
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_skorch_gives_probabilities():
    skorch = pytest.importorskip("skorch")
    from sklearn.model_selection import cross_val_score

    features, target = (x.numpy() for x in rows(200))
    net = document.example("skorch")["net"]
    net.set_params(max_epochs=3)
    probabilities = net.fit(features, target).predict_proba(features)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5) and probabilities.min() >= 0
    assert np.isfinite(cross_val_score(net, features, target, cv=2, scoring="neg_log_loss")).all()
    stop = skorch.callbacks.EarlyStopping(monitor="valid_acc", lower_is_better=False)
    net.set_params(callbacks=[stop]).fit(features, target)

    net.set_params(predict_nonlinearity="auto", callbacks=[]).fit(features, target)
    assert not np.allclose(net.predict_proba(features).sum(1), 1, atol=1e-2)  # what the page warns of


def test_onnx_takes_the_reference_alone():
    pytest.importorskip("onnxscript")

    class Whole(torch.nn.Module):
        def __init__(self, loss_of):
            super().__init__()
            self.network, self.loss_of = torch.nn.Linear(16, 10), loss_of

        def forward(self, features, target):
            return self.loss_of(self.network(features), target, imae_ext.IMAE())

    inputs = rows(8)
    torch.onnx.export(Whole(imae_ext.reference.robust_loss), inputs, io.BytesIO(), dynamo=True, verbose=False)
    with pytest.raises(torch.onnx.errors.OnnxExporterError):
        torch.onnx.export(Whole(imae_ext.robust_loss), inputs, io.BytesIO(), dynamo=True, verbose=False)
