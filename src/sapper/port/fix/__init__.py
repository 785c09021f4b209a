"""Rewriting of couplings into code for any accelerator, which still runs on CUDA as before.

``plan`` decides in memory, file by file (:mod:`sapper.port.fix.file`), with one rewriter per family of couplings
(:mod:`sapper.port.fix.rewrite`) and a policy for what takes CUDA's place (:mod:`sapper.port.fix.policy`). Edits are by
span: no other byte of a file changes, and the result is parsed and compared before it counts. ``journal`` writes all files
or none, and takes a run back.
"""
