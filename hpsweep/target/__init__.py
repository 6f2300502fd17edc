"""The target run: the reference GPT trained at the size and with the settings of a card."""
