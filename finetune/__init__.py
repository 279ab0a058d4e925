"""Downstream tasks for our model and for any Hugging Face encoder."""
