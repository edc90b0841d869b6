"""The student: fine-tunes and predicts with one causal language model."""
