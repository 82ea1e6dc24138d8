"""One execution of a study: questions, answers, sums, and the run directory. It knows nothing of Flower, ports or processes."""
