"""Downstream tasks for our model and for any Hugging Face encoder: Russian SuperGLUE, RuCoLA, and people's own."""
