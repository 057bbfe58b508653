"""One file for each kind of stock vision tower: from open_clip's names and shapes to those of transformers."""
