"""From a card to other trainers: parameter groups, a Hugging Face script, a nanoGPT config."""
