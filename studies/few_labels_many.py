"""The control of few_labels.py: the same stages with 900 labels. Run that one first; its first stage is used again."""

from few_labels import HEAD_ROUNDS, ROUNDS, FewLabels, HeadOnly

from tuner import Campaign, best_of

head = Campaign(
    HeadOnly(900, batch_size=30),
    name="digits-900-labels-head",
    start_from=best_of("digits-denoised", parameters="encoder.*"),
    rounds=HEAD_ROUNDS,
)
campaign = Campaign(FewLabels(900, batch_size=30), name="digits-900-labels", start_from=best_of(head), rounds=ROUNDS)
