"""Where checkpoints lie: a folder, or a place in a bucket of an object store."""
