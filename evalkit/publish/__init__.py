"""Publishing on the Hugging Face Hub: cards, the list of files, the upload."""
