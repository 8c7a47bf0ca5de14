"""What the methods find: changed copies are planted, searched for and counted."""
