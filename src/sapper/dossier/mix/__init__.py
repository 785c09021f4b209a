"""The picture of a mixed plan: who computes what when, as a Chrome trace, an SVG and a page."""
