"""`csasn ablate`: variants of one study over several seeds, each trained once, scored case by case and compared."""
