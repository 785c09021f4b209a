"""Training that goes on when chips, processes or hosts are gone: without a restart, on what is left, with the same weights.

Every process is linked to every other (:mod:`~sapper.mix.survive.peers`), so the end of one is known to all at once and there is no
host whose loss ends the job. The survivors report what state they hold (:mod:`~sapper.mix.survive.keep`); the one of them with the
lowest number decides who sits where, at which step they go on, and who gives which layers to whom (:mod:`~sapper.mix.survive.decide`).
"""

from __future__ import annotations
