"""The report of a folder of proofs: one page in two languages, JSON, JUnit, and the words for a terminal."""
