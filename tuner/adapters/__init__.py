"""Adapters: small trained matrices beside the frozen weights of a model (LoRA)."""
