"""Port: what ties code to CUDA, what becomes of it on each target, and the rewrite.

``scan`` finds couplings (:class:`~sapper.port.finding.Finding`) by rules (:mod:`sapper.port.rule`, one file each);
``verdicts`` says what becomes of each on a target, with a source; ``fix`` rewrites what can be rewritten safely;
``kernels`` sorts and converts CUDA C++; ``dryrun`` runs a program on an accelerator that does not exist.
Scanning never imports or runs the code that it reads.
"""
