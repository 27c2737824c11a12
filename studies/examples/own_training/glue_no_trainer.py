"""A small BERT that tells good reviews from bad ones by a loop of Accelerate, in the form of `run_glue_no_trainer`."""

import argparse
import itertools
import random

import torch
from accelerate import Accelerator
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
)

from tuner import Campaign, OwnLoop, Round, SearchSpace, log_uniform, minimize

GOOD, BAD = "good fine great lovely bright".split(), "poor dull weak awful grey".split()
OTHER = "the film a story this actor was is with and very it of that music scene end".split()


def parse_args(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--max_length", type=int, default=24)
    parser.add_argument("--per_device_train_batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument("--weight_decay", type=float, default=0.0)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=2)
    return parser.parse_args(argv)


def made_reviews(number, seed):
    """Reviews of 6 to 16 words: two of them judge, and "not" before such a word turns it around. Label 1: good."""
    draw, rows = random.Random(seed), {"sentence": [], "labels": []}
    while len(rows["labels"]) < number:
        words, judgement = draw.choices(OTHER, k=draw.randint(4, 12)), 0
        for _ in range(2):
            right, turned = draw.random() < 0.5, draw.random() < 0.3
            word = draw.choice(GOOD if right else BAD)
            words.insert(draw.randint(0, len(words)), f"not {word}" if turned else word)
            judgement += 1 if right != turned else -1
        if judgement:
            rows["sentence"].append(" ".join(words))
            rows["labels"].append(int(judgement > 0))
    return Dataset.from_dict(rows)


def made_tokenizer():
    words = ["[PAD]", "[UNK]", "not", *GOOD, *BAD, *OTHER]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def evaluate(accelerator, model, eval_dataloader):
    model.eval()
    losses, right = [], []
    for batch in eval_dataloader:
        with torch.no_grad():
            outputs = model(**batch)
        logits, references = accelerator.gather_for_metrics((outputs.logits, batch["labels"]))
        losses.append(torch.nn.functional.cross_entropy(logits, references, reduction="none"))
        right.append(logits.argmax(dim=-1) == references)
    loss, accuracy = torch.cat(losses).mean().item(), torch.cat(right).float().mean().item()
    return {"validation/loss": loss, "validation/accuracy": accuracy}


def main(trial):
    args = parse_args([f"--{name}={value}" for name, value in trial.point.items()])
    accelerator = Accelerator(gradient_accumulation_steps=args.gradient_accumulation_steps)

    tokenizer = made_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    model = BertForSequenceClassification(config)

    def preprocess_function(examples):
        result = tokenizer(examples["sentence"], max_length=args.max_length, truncation=True)
        return {**result, "labels": examples["labels"]}

    with accelerator.main_process_first():
        train_dataset = made_reviews(800, 1).map(preprocess_function, batched=True, remove_columns=["sentence"])
        eval_dataset = made_reviews(400, 2).map(preprocess_function, batched=True, remove_columns=["sentence"])
    data_collator = DataCollatorWithPadding(tokenizer)
    train_dataloader = DataLoader(
        train_dataset, shuffle=True, collate_fn=data_collator, batch_size=args.per_device_train_batch_size
    )
    eval_dataloader = DataLoader(eval_dataset, collate_fn=data_collator, batch_size=100)

    no_decay = ("bias", "LayerNorm.weight")
    decayed = [p for name, p in model.named_parameters() if not name.endswith(no_decay)]
    others = [p for name, p in model.named_parameters() if name.endswith(no_decay)]
    groups = [{"params": decayed, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate)
    lr_scheduler = trial.scheduler(optimizer)
    model, optimizer, train_dataloader, eval_dataloader, lr_scheduler = accelerator.prepare(
        model, optimizer, train_dataloader, eval_dataloader, lr_scheduler
    )

    trial.keep_files(accelerator.save_state, accelerator.load_state)
    batches = trial.batches(train_dataloader)
    for step in trial.steps():
        model.train()
        for batch in itertools.islice(batches, args.gradient_accumulation_steps):
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                accelerator.backward(loss)
                optimizer.step()
                lr_scheduler.step()
                optimizer.zero_grad()
        if trial.evaluates(step):
            trial.report(evaluate(accelerator, model, eval_dataloader))


class Reviews(OwnLoop):
    select_by = minimize("validation/loss")

    def train(self, trial):
        main(trial)


campaign = Campaign(
    Reviews(),
    production_steps=150,
    rounds=[
        Round("Which rate, and how much decay?", trials=10, max_train_steps=75, space=SearchSpace(
            learning_rate=log_uniform(3e-4, 0.03), weight_decay=log_uniform(1e-3, 1.0),
        )),
        Round("The final model", promote=2),
    ],
)  # fmt: skip
