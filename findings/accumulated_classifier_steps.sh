#!/usr/bin/env bash
# transformers' Trainer: gradient accumulation over N equal micro-batches takes N times the step for a classifier.
#
# One would guess that four accumulated micro-batches of one row each, all the same row, move the weights as one batch
# of that row does: the mean of four equal gradients is the gradient. That is so for causal language models. With the
# built-in loss of BertForSequenceClassification (RoBERTa's, ModernBERT's and Llama's alike) the step of SGD is exactly
# four times as large: the forward accepts **kwargs, so the Trainer takes the loss for one that has been divided by
# num_items_in_batch and does not divide by the number of steps; but the classifiers' loss is a plain mean.
#
# Seen on 2026-11-28: transformers 5.24.0, torch 2.13.0, CPU. Exits non-zero when the ratio is no longer 4.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 accelerate==1.15.0
export HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import torch
import transformers
from torch.nn.utils import parameters_to_vector


def step(steps):
    """How far one step of plain SGD moves the weights."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_labels=5,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )
    model = transformers.BertForSequenceClassification(config)
    before = parameters_to_vector(model.parameters()).detach().clone()
    arguments = transformers.TrainingArguments(
        sys.argv[1] + "/out", per_device_train_batch_size=1, gradient_accumulation_steps=steps, max_steps=1,
        learning_rate=0.01, lr_scheduler_type="constant", optim="sgd", max_grad_norm=0.0, use_cpu=True, report_to=[],
        save_strategy="no", disable_tqdm=True,
    )
    rows = [{"input_ids": [5, 6, 7, 8], "labels": 1}] * steps
    transformers.Trainer(model, arguments, train_dataset=rows).train()
    return float((parameters_to_vector(model.parameters()).detach() - before).norm())


ratio = step(4) / step(1)
print(f"step with 4 accumulated micro-batches / step with 1: {ratio:.4f}, expected 1")
sys.exit(abs(ratio - 4) > 0.01)
PYTHON
