"""The small models: data, a GPT over a leading trial axis, AdamW, and training of ensembles."""
