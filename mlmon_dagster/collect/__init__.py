"""Take in events over HTTP; an answer of 202 means that they are on the disk."""
