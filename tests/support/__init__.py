"""Workloads and recorders that several tests use."""
