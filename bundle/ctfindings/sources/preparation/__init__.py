"""What every source shares: splits, ledger, data card, datalist."""
