"""transformers' Trainer and TRL's SFTTrainer: accumulation, batches without labels, and what the trainers do around."""

from __future__ import annotations

import pickle
import warnings

import pytest
import torch
from documented import document
from torch import Tensor

import imae_ext
from imae_ext.trainers import causal_lm_loss, classification_loss

transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")

STEPS, ACCUMULATED, LENGTH, VOCABULARY = 3, 4, 12, 50
AS_IT_IS = {"skip_prepare_dataset": True}  # else TRL drops rows without labels that it can see beforehand


def causal_model() -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, pad_token_id=0, **sizes)
    return transformers.LlamaForCausalLM(config)


def classifier(kind: str = "Bert") -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = getattr(transformers, f"{kind}Config")(vocab_size=VOCABULARY, num_labels=5, pad_token_id=0, **sizes)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return getattr(transformers, f"{kind}ForSequenceClassification")(config)


def causal_rows(without_labels: tuple[int, ...] = (1,)) -> list[dict]:
    """One row a micro-batch; all micro-batches of the optimizer steps named here have no label at all."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for i in range(STEPS * ACCUMULATED):
        tokens = torch.randint(1, VOCABULARY, (LENGTH,), generator=generator).tolist()
        labels = [-100] * (i % 5 + 1) + tokens[i % 5 + 1 :]
        if i // ACCUMULATED in without_labels:
            labels = [-100] * LENGTH
        rows.append({"input_ids": tokens, "attention_mask": [1] * LENGTH, "labels": labels})
    return rows


def classified_rows() -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    return [
        {"input_ids": torch.randint(1, VOCABULARY, (8,), generator=generator).tolist(), "labels": i % 5}
        for i in range(STEPS * ACCUMULATED)
    ]


def options(tmp_path, **more) -> dict:
    return {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": ACCUMULATED,
        "max_steps": STEPS,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1,
        "optim": "sgd",  # with the steps' sizes proportional to the gradients
        "max_grad_norm": 0.0,
        "dataloader_drop_last": False,
        **more,
    }


class Ordered(transformers.Trainer):
    """Takes the rows in their order."""

    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def trained(model, tmp_path, rows, compute=None, **more) -> tuple[Tensor, list[float]]:
    """All weights after training as one vector, and the logged losses."""
    arguments = transformers.TrainingArguments(**options(tmp_path, **more))
    trainer = Ordered(
        model,
        arguments,
        train_dataset=rows,
        compute_loss_func=compute,
        data_collator=transformers.default_data_collator,
    )
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return weights(model), logged


def weights(model) -> Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def close(a: Tensor, b: Tensor) -> bool:
    """Equal to float32's rounding, and not for want of training."""
    moved = (b - weights(causal_model())).abs().max() if b.numel() == weights(causal_model()).numel() else 1.0
    return bool(torch.isfinite(a).all()) and bool((a - b).abs().max() < 1e-6) and bool(moved > 1e-4)


# --- a batch without labels ---------------------------------------------------------------------------------------


def test_trainer_survives_an_accumulated_batch_without_labels(tmp_path):
    """As the built-in loss does; IMAE, too."""
    built_in, _ = trained(causal_model(), tmp_path, causal_rows(()))
    ours, _ = trained(causal_model(), tmp_path, causal_rows(()), causal_lm_loss(imae_ext.CCE()))
    assert close(ours, built_in)

    ours, logged = trained(causal_model(), tmp_path, causal_rows(), causal_lm_loss(imae_ext.CCE()))
    before = [row for i, row in enumerate(causal_rows()) if i // ACCUMULATED != 1]
    without, _ = trained(causal_model(), tmp_path, before, None, max_steps=STEPS - 1)
    assert close(ours, without) and logged[1] == 0.0
    robust, logged = trained(causal_model(), tmp_path, causal_rows(), causal_lm_loss(imae_ext.IMAE()))
    assert torch.isfinite(robust).all() and logged[1] == 0.0 and logged[0] > 0


class RobustSFTTrainer(trl.SFTTrainer):
    """The page's subclass, here with cross entropy."""

    loss_of = staticmethod(causal_lm_loss(imae_ext.CCE()))
    compute_loss = document.example("TRL")["RobustSFTTrainer"].compute_loss

    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def tokenizer():
    from tokenizers import Tokenizer, models

    vocabulary = {f"t{i}": i for i in range(VOCABULARY)}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="t0", eos_token="t1", unk_token="t0")


def fine_tuned(kind, tmp_path, rows) -> tuple[Tensor, list[float]]:
    import datasets

    model = causal_model()
    arguments = trl.SFTConfig(**options(tmp_path, bf16=False, dataset_kwargs=AS_IT_IS))
    trainer = kind(model, arguments, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer())
    trainer.train()
    return weights(model), [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


class OrderedSFTTrainer(trl.SFTTrainer):
    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def test_trl_survives_an_accumulated_batch_without_labels(tmp_path):
    built_in, _ = fine_tuned(OrderedSFTTrainer, tmp_path, causal_rows())
    ours, logged = fine_tuned(RobustSFTTrainer, tmp_path, causal_rows())
    assert close(ours, built_in) and logged[1] == 0.0


def test_trl_with_imae_trains(tmp_path):
    class Robust(RobustSFTTrainer):
        loss_of = staticmethod(causal_lm_loss(imae_ext.IMAE()))

    ours, _ = fine_tuned(Robust, tmp_path, causal_rows())
    assert torch.isfinite(ours).all() and not close(ours, fine_tuned(OrderedSFTTrainer, tmp_path, causal_rows())[0])


def test_trls_dft_is_half_of_mae_in_gradient(tmp_path):
    import datasets

    class Half(RobustSFTTrainer):
        loss_of = staticmethod(causal_lm_loss(imae_ext.GCE(q=1.0)))

    ours, _ = fine_tuned(Half, tmp_path, causal_rows())
    model = causal_model()
    arguments = trl.SFTConfig(**options(tmp_path, bf16=False, loss_type="dft", dataset_kwargs=AS_IT_IS))
    rows = datasets.Dataset.from_list(causal_rows())
    OrderedSFTTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer()).train()
    assert (ours - weights(model)).abs().max() < 1e-6 and (ours - weights(causal_model())).abs().max() > 1e-5


# --- classification, and what the page says of the trainer ---------------------------------------------------------


@pytest.mark.parametrize("accumulated", (1, 4))
def test_a_classifier_takes_the_step_of_the_whole_batch(tmp_path, accumulated):
    """Whatever the accumulation: rows and their order are the same, and so are the weights."""
    steps = STEPS * ACCUMULATED // 4
    more = {"per_device_train_batch_size": 4 // accumulated, "gradient_accumulation_steps": accumulated}
    ours, _ = trained(
        classifier(), tmp_path, classified_rows(), classification_loss(imae_ext.CCE()), max_steps=steps, **more
    )
    whole, _ = trained(
        classifier(), tmp_path, classified_rows(), None, max_steps=steps,
        per_device_train_batch_size=4, gradient_accumulation_steps=1,
    )  # fmt: skip
    assert (ours - whole).abs().max() < 1e-6 and (ours - weights(classifier())).abs().max() > 1e-4


def first_step(tmp_path, compute, accumulated: int, kind: str = "Bert", **more) -> float:
    """How far one step of SGD moves the weights, with four equal micro-batches or one."""
    rows = classified_rows()[:1] * accumulated
    moved, _ = trained(
        classifier(kind), tmp_path, rows, compute, max_steps=1, gradient_accumulation_steps=accumulated, **more
    )
    return float((moved - weights(classifier(kind))).norm())


@pytest.mark.parametrize("kind", ("Bert", "Roberta", "ModernBert", "Llama"))
def test_built_in_classifiers_are_too_large_at_accumulation(tmp_path, kind):
    """What the page warns of; if it is no longer so, the page must change."""
    assert first_step(tmp_path, None, 4, kind) / first_step(tmp_path, None, 1, kind) == pytest.approx(4, rel=1e-3)


def test_a_function_that_takes_the_mean_is_too_large_at_accumulation(tmp_path):
    def mean(outputs, labels, num_items_in_batch=None):
        return torch.nn.functional.cross_entropy(outputs.logits, labels)

    assert first_step(tmp_path, mean, 4) / first_step(tmp_path, mean, 1) == pytest.approx(4, rel=1e-3)
    ours = classification_loss(imae_ext.CCE())
    assert first_step(tmp_path, ours, 4) / first_step(tmp_path, ours, 1) == pytest.approx(1, rel=1e-3)


def test_label_smoothing_beside_a_function_is_dropped_in_silence(tmp_path):
    ours = classification_loss(imae_ext.CCE())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        smoothed = first_step(tmp_path, ours, 1, label_smoothing_factor=0.5)
    assert smoothed == first_step(tmp_path, ours, 1)
    assert not [w for w in said if "smooth" in str(w.message)]


def test_the_number_of_labels_arrives_as_a_float_tensor(tmp_path):
    seen = []

    def compute(outputs, labels, num_items_in_batch=None):
        seen.append(num_items_in_batch)
        return classification_loss(imae_ext.CCE())(outputs, labels, num_items_in_batch)

    trained(classifier(), tmp_path, classified_rows(), compute, max_steps=1)
    assert seen[0].dtype == torch.float32 and seen[0] == 4 and len(seen) == 4


def test_models_that_return_tuples(tmp_path):
    model = classifier()
    model.config.return_dict = False
    ours, _ = trained(model, tmp_path, classified_rows(), classification_loss(imae_ext.CCE()))
    wanted, _ = trained(classifier(), tmp_path, classified_rows(), classification_loss(imae_ext.CCE()))
    assert torch.equal(ours, wanted)


def test_evaluation_gives_the_mean(tmp_path):
    compute = classification_loss(imae_ext.IMAE())
    model, rows = classifier(), classified_rows()
    arguments = transformers.TrainingArguments(**options(tmp_path, per_device_eval_batch_size=len(rows)))
    trainer = transformers.Trainer(
        model, arguments, eval_dataset=rows, compute_loss_func=compute, data_collator=transformers.default_data_collator
    )
    tokens, labels = torch.tensor([r["input_ids"] for r in rows]), torch.tensor([r["labels"] for r in rows])
    wanted = imae_ext.imae_loss(model.eval()(tokens).logits, labels)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(wanted.item(), rel=1e-5)


def test_a_causal_model_is_not_taken_for_a_classifier():
    model, tokens = causal_model(), torch.randint(1, VOCABULARY, (2, LENGTH))
    outputs = model(tokens)
    with pytest.raises(ValueError, match="causal_lm_loss"):
        classification_loss(imae_ext.CCE())(outputs, tokens)
    twin = pickle.loads(pickle.dumps(causal_lm_loss(imae_ext.CCE())))
    assert torch.allclose(twin(outputs, tokens), model(tokens, labels=tokens).loss, rtol=1e-6)
