"""Arrays in, arrays out: encoding, statistics, folds."""
