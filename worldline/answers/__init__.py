"""Scoring what models answer about motion: free text to numbers and words, by rules, without a language model."""
