"""What workers may share: conversations and the claims on them, windows, budgets, outcomes."""
