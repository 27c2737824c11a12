"""Where trials run. A backend claims trials from the Ledger, has them trained, and knows when to stop."""
