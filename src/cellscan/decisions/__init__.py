"""The rules from probabilities to labels, label sets and novelty: records, and the functions that apply them."""
