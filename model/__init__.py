"""LeanALBERT as a Hugging Face model, and its optimizer. Knows nothing of text or networks."""
