"""What runs inside the user's processes during a dry run; it changes no file of theirs and must never break them."""
