"""The fused head of docs/language_models.md in transformers' Trainer and TRL's SFTTrainer, against the unfused run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from test_transformers import (
    Ordered,
    OrderedSFTTrainer,
    RobustSFTTrainer,
    causal_model,
    causal_rows,
    close,
    fine_tuned,
    options,
    trained,
    weights,
)

import imae_ext
from benchmarks.linear_head import peak
from imae_ext.trainers import causal_lm_loss

transformers = pytest.importorskip("transformers")
DOCUMENT = Path(__file__).parents[2] / "docs" / "language_models.md"
RECIPE: dict = {"__name__": "example"}
for code in re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S):
    if "class FusedHead" in code or "class LogProbsSFTTrainer" in code:
        exec(compile(code, str(DOCUMENT), "exec"), RECIPE)


@pytest.mark.parametrize("formula", (imae_ext.CCE(), imae_ext.GCE(0.7), imae_ext.IMAE(8.0)), ids=repr)
def test_trainer(tmp_path, formula):
    """Accumulated micro-batches of different numbers of labels, one step without any."""
    wanted, _ = trained(causal_model(), tmp_path, causal_rows(), causal_lm_loss(formula))

    class Trainer(RECIPE["FusedHead"], Ordered):
        pass

    Trainer.formula = formula
    model = causal_model()
    arguments = transformers.TrainingArguments(**options(tmp_path))
    collate = transformers.default_data_collator
    trainer = Trainer(model, arguments, train_dataset=causal_rows(), eval_dataset=causal_rows(), data_collator=collate)
    trainer.train()
    assert close(weights(model), wanted)
    assert trainer.evaluate()["eval_loss"] > 0


def test_sft_trainer(tmp_path):
    """TRL's trainer prepares and collates the rows itself; the model's parts are called by the recipe alone."""

    class Trainer(RECIPE["FusedHead"], OrderedSFTTrainer):
        formula = imae_ext.CCE()

    ours, logged = fine_tuned(Trainer, tmp_path, causal_rows())
    built_in, _ = fine_tuned(OrderedSFTTrainer, tmp_path, causal_rows())
    assert close(ours, built_in) and len(logged) > 0

    class Robust(Trainer):
        formula = imae_ext.GCE(0.7)

    assert not close(fine_tuned(Robust, tmp_path, causal_rows())[0], built_in)


@pytest.mark.parametrize("formula", (imae_ext.CCE(), imae_ext.GCE(0.7), imae_ext.IMAE(8.0, eps=1e-3)), ids=repr)
def test_sft_trainer_from_its_own_log_probabilities(tmp_path, formula):
    """TRL's chunked head and the formula alone: the weights of the run that makes logits."""

    class FromLogits(RobustSFTTrainer):
        loss_of = staticmethod(causal_lm_loss(formula))

    class FromLogProbs(RECIPE["LogProbsSFTTrainer"], OrderedSFTTrainer):
        pass

    FromLogProbs.formula = formula
    ours, logged = fine_tuned(FromLogProbs, tmp_path, causal_rows())
    wanted, as_logged = fine_tuned(FromLogits, tmp_path, causal_rows())
    assert close(ours, wanted) and logged == pytest.approx(as_logged, rel=1e-3)


@pytest.mark.parametrize("kind", ("Gemma2", "Cohere", "Granite", "Llama"))
def test_heads_that_scale_or_cap_their_logits(kind):
    """What the recipe reads from a configuration is what the model's own head does."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    more = {"Gemma2": {"final_logit_softcapping": 0.5, "head_dim": 8}, "Granite": {"logits_scaling": 7.0}}.get(kind, {})
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=50, num_key_value_heads=2, pad_token_id=0, **sizes, **more
    )
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    tokens = torch.randint(1, 50, (2, 7))
    hidden = model.model(input_ids=tokens).last_hidden_state
    ours = imae_ext.linear_robust_loss(
        hidden[:, :-1], model.lm_head.weight, tokens[:, 1:], imae_ext.CCE(), **RECIPE["head_options"](config)
    )
    assert torch.allclose(ours, model(input_ids=tokens, labels=tokens).loss, rtol=1e-5)
    if kind != "Llama":
        plain = imae_ext.linear_robust_loss(hidden[:, :-1], model.lm_head.weight, tokens[:, 1:], imae_ext.CCE())
        assert not torch.allclose(ours, plain, rtol=1e-4)


def test_memory_of_a_training_step(tmp_path, capsys):
    """A step of 1,024 tokens of a vocabulary of 32,000: prints what each needs beyond what is there before."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=32000, num_key_value_heads=2, tie_word_embeddings=True, **sizes)
    tokens = torch.randint(32000, (4, 256), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [{"input_ids": row, "labels": row} for row in tokens]

    class Fused(RECIPE["FusedHead"], transformers.Trainer):
        pass

    def megabytes(kind, **more) -> float:
        arguments = options(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=1, max_steps=1)
        arguments = transformers.TrainingArguments(**arguments)
        model = transformers.LlamaForCausalLM(config)
        collate = transformers.default_data_collator
        trainer = kind(model, arguments, train_dataset=rows, data_collator=collate, **more)
        peak("cpu")
        before = peak("cpu")
        trainer.train()
        return (peak("cpu") - before) / 2**20

    robust = {"compute_loss_func": causal_lm_loss(imae_ext.GCE(0.7))}
    megabytes(Fused)  # loads what is loaded once
    found = {
        "the trainer's own loss": megabytes(transformers.Trainer),
        "causal_lm_loss": megabytes(transformers.Trainer, **robust),
        "the fused head": megabytes(Fused),
    }
    with capsys.disabled():
        print("\n" + ", ".join(f"{name}: {size:.0f} MB" for name, size in found.items()))
    assert 3 * found["the fused head"] < found["causal_lm_loss"] < found["the trainer's own loss"]


def test_an_unknown_head_is_refused():
    with pytest.raises(ValueError, match="look at how gpt2 makes its logits"):
        RECIPE["head_options"](transformers.GPT2Config())
