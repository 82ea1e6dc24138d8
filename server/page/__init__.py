"""The live page of a federation and its metrics: read from the folder of a study, or from the directory of a run."""
