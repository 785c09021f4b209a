"""Charts of a proof as static SVG."""
