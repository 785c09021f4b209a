"""One file per software stack; each exports ``open(detail: str | None) -> Backend`` and imports its stack only when used."""
