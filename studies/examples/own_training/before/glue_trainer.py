"""A small BERT that tells good reviews from bad ones by the Trainer of Hugging Face, in the form of `run_glue`."""

import random
from dataclasses import dataclass, field

import numpy as np
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    HfArgumentParser,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

GOOD, BAD = "good fine great lovely bright".split(), "poor dull weak awful grey".split()
OTHER = "the film a story this actor was is with and very it of that music scene end".split()


@dataclass
class DataTrainingArguments:
    max_seq_length: int = field(default=24)
    train_examples: int = field(default=800)
    eval_examples: int = field(default=400)


@dataclass
class ModelArguments:
    hidden_size: int = field(default=32)
    dropout: float = field(default=0.1)


def made_reviews(number, seed):
    """Reviews of 6 to 16 words: two of them judge, and "not" before such a word turns it around. Label 1: good."""
    draw, rows = random.Random(seed), {"sentence": [], "label": []}
    while len(rows["label"]) < number:
        words, judgement = draw.choices(OTHER, k=draw.randint(4, 12)), 0
        for _ in range(2):
            right, turned = draw.random() < 0.5, draw.random() < 0.3
            word = draw.choice(GOOD if right else BAD)
            words.insert(draw.randint(0, len(words)), f"not {word}" if turned else word)
            judgement += 1 if right != turned else -1
        if judgement:
            rows["sentence"].append(" ".join(words))
            rows["label"].append(int(judgement > 0))
    return Dataset.from_dict(rows)


def made_tokenizer():
    words = ["[PAD]", "[UNK]", "not", *GOOD, *BAD, *OTHER]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def main():
    parser = HfArgumentParser((ModelArguments, DataTrainingArguments, TrainingArguments))
    parser.set_defaults(learning_rate=3e-3, num_train_epochs=6, per_device_train_batch_size=32, eval_strategy="epoch")
    parser.set_defaults(warmup_steps=10, per_device_eval_batch_size=200, report_to="none")
    parser.set_defaults(save_strategy="no", output_dir="runs/glue_trainer")
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)

    tokenizer = made_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=model_args.hidden_size, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, hidden_dropout_prob=model_args.dropout, num_labels=2,
    )  # fmt: skip
    model = BertForSequenceClassification(config)

    def preprocess_function(examples):
        return tokenizer(examples["sentence"], max_length=data_args.max_seq_length, truncation=True)

    train_dataset = made_reviews(data_args.train_examples, 1).map(preprocess_function, batched=True)
    eval_dataset = made_reviews(data_args.eval_examples, 2).map(preprocess_function, batched=True)

    def compute_metrics(p):
        return {"accuracy": (np.argmax(p.predictions, axis=1) == p.label_ids).mean()}

    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        compute_metrics=compute_metrics,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    print(trainer.evaluate())


if __name__ == "__main__":
    main()
