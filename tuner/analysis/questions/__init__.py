"""The questions of the playbook, one module each: its record, the evidence, and how it is answered."""
