"""Reports of a scan: for a reader (concise, full), for programs (JSON, SARIF, JUnit), and the table of targets."""
