"""The kinds of pictures, one file each: how it is sampled, drawn, described and asked about."""
