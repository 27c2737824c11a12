"""The control of few_labels.py: the same stages with 900 labels. Run that one first; its first stage is used again."""

from few_labels import stages

head, campaign = stages(900, "digits-denoised", "digits-900-labels")
