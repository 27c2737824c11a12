"""The sections of the report, one file each, and one for those that need no template of their own."""
