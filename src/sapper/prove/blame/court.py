"""The trial: counter-runs in isolation, what they establish, and the row of the truth table that decides."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from sapper.backends import Backend, find
from sapper.backends.computation import Computation
from sapper.prove.blame import evaluators
from sapper.prove.blame.result import Counter, Evidence, Ruling
from sapper.prove.blame.table import decide
from sapper.prove.call import Call
from sapper.prove.child import needs_fresh
from sapper.prove.isolate import Answer, Job, Pool
from sapper.prove.judge import OK, RED
from sapper.prove.suspect import Suspect, Untraceable, suspect_of
from sapper.prove.verdict import GREEN, Outcome
from sapper.prove.verdict import RED as FINDINGS

LIMIT_S = 120.0
"""Wall time of one counter-run: a stack may take half a minute to come up and compile."""
FRESH_RUNS = 2
"""Fresh processes in which the suspect runs: what differs between them is chance."""


_OF_VALUES: frozenset[Outcome] = frozenset({"wrong", "imprecise", "nan", "nondeterministic", "stateful"})
"""Outcomes that speak of values, not of the process."""


def rule_on(
    suspect: Suspect | Call | Computation,
    backend_spec: str,
    *,
    outcome: Outcome,
    limit_s: float = LIMIT_S,
    memory_bytes: int | None = None,
    pool: Pool | None = None,
) -> Ruling:
    """Whose fault it is.

    Args:
        suspect: What was run, with the inputs on which it was seen; what ran before it in :attr:`Suspect.before`, where known.
        backend_spec: The stack that is accused, as on the command line.
        outcome: What was seen there.
        limit_s: Wall time of one counter-run; what takes longer hangs.
        memory_bytes: Resident memory of one counter-run.
        pool: One of :func:`court_pool`, for several cases; its limits are in force. None: one of its own.
    """
    backend = find(backend_spec)
    try:
        graph = _graph(suspect)
    except Untraceable as error:
        nothing = Evidence(counter="reference", on="cpu", code="prove.evidence.untraceable", said=str(error))
        return Ruling(blame="unknown", reason="prove.ruling.open", outcome=outcome, evidence=(nothing,))
    with tempfile.TemporaryDirectory(prefix="sapper-blame-") as folder:
        path = Path(folder) / "suspect.safetensors"
        path.write_bytes(graph.to_bytes())
        if pool is not None:
            return _Trial(backend, path, pool, outcome).run(graph)
        with court_pool(limit_s=limit_s, memory_bytes=memory_bytes) as own:
            return _Trial(backend, path, own, outcome).run(graph)


def court_pool(*, limit_s: float = LIMIT_S, memory_bytes: int | None = None) -> Pool:
    """A worker in whose children counter-runs take place, each as clean as the first."""
    return Pool("sapper.prove.child:setup", {}, limit_s=limit_s, memory_bytes=memory_bytes)


def _graph(suspect: Suspect | Call | Computation) -> Suspect:
    if isinstance(suspect, Suspect):
        return suspect
    return suspect_of(suspect.computation() if isinstance(suspect, Call) else suspect)


class _Trial:
    """One case; evidence gathers in the order in which it is asked for."""

    def __init__(self, backend: Backend, path: Path, pool: Pool, seen: Outcome) -> None:
        self.backend, self.path, self.pool, self.seen = backend, path, pool, seen
        self.evidence: list[Evidence] = []
        self.facts: dict[str, bool] = {"is_compiler": backend.kind == "compiler", "writes_code": evaluators.writes_code(backend)}
        self.outcome: Outcome = seen
        self.known: dict[str, Any] = {}

    def run(self, graph: Suspect) -> Ruling:
        """Ask only for evidence that can still change the ruling."""
        if self._reference():
            self._alone()
            if not self.facts["red_alone"]:
                self._after()
            else:
                self._chain(graph)
        row = decide(self.facts)
        return Ruling(
            blame=row.blame, reason=f"prove.ruling.{row.name}", outcome=self.outcome, evidence=tuple(self.evidence), facts=self.facts
        )

    def _ask(self, function: str, *, backend: str | None = None) -> tuple[dict[str, Any], Answer]:
        payload = {"suspect": str(self.path), "backend": backend or self.backend.name}
        job = Job(id=function, function=f"sapper.prove.blame.runs:{function}", payload=payload, fresh=needs_fresh(self.pool))
        (answer,) = self.pool.run([job])
        if answer.status != "done":
            return {"runs": [{"outcome": {"raised": "crash"}.get(answer.status, answer.status), "said": answer.said}]}, answer
        became = answer.value
        if "value" in became:
            return dict(became["value"]), answer
        outcome = "crash" if "signal" in became else "void"  # an error of the counter-run itself proves nothing
        return {"runs": [{"outcome": outcome, "said": became.get("signal") or became.get("raised")}]}, answer

    def _note(self, counter: Counter, code: str, answer: Answer, **said: Any) -> None:
        """Keep one piece of evidence: what ran (``on``), what became of it (``run``), and further values of its sentence."""
        on, run = said.pop("on", self.backend.name), said.pop("run", {})
        one = Evidence(
            counter=counter, on=on, code=f"prove.evidence.{code}", values=said, outcome=run.get("outcome"),
            roundings_ratio=run.get("roundings"), said=run.get("said"), wall_s=answer.wall_s,
        )  # fmt: skip
        self.evidence.append(one)

    def _reference(self) -> bool:
        """Whether the trusted stack can compute it at all; what it is worth."""
        found, answer = self._ask("reference")
        if "peer" not in found:
            said = found.get("fails") or found["runs"][0]["said"]
            self.facts["reference_fails"] = True
            self._note("reference", "reference_fails", answer, on="cpu", run={"said": said})
            return False
        self.known = found
        other = max(found["spread"], found.get("other_algorithm", 0.0))
        self.facts["reference_fails"] = False
        self.facts["draws"] = found["draws"]
        self.facts["reads_unwritten"] = found["reads_unwritten"] and self.seen in _OF_VALUES
        self.facts["peer_wrong"] = found["peer"] > RED * max(1.0, found["spread"])
        self._note("peer", "peer_wrong" if self.facts["peer_wrong"] else "peer_right", answer, on="cpu", run={"roundings": found["peer"]})
        self._note("spread", "spread", answer, on="cpu", run={"roundings": other})
        return True

    def _alone(self) -> None:
        runs = []
        for _ in range(FRESH_RUNS):
            found, answer = self._ask("alone")
            runs.append(found["runs"])
            self._note("alone", "alone", answer, run=found["runs"][0])
            if len(found["runs"]) > 1:
                self._note("again", "again", answer, run=found["runs"][1])
            if not self._red(runs[0][0]) and not self._red(runs[0][-1]):
                break
        first = runs[0][0]
        self.outcome = first["outcome"] or "void"
        red = [self._red(one[0]) for one in runs]
        later = [self._red(one[1]) for one in runs if len(one) > 1]
        self.facts["red_alone"] = any(red)
        self.facts["unsupported"] = first["outcome"] == "unsupported"
        if len(later) == len(red) and all(later) and not any(red):
            self.facts["later_run_only"] = self.facts["red_after"] = True
        if len(later) == len(red) and all(red) and not any(later):
            self.facts["first_run_only"] = True
        if self._differ(runs):
            self.facts["varies"] = True
        self._against_reference(first)

    def _differ(self, runs: list[list[dict[str, Any]]]) -> bool:
        """Whether fresh processes disagree about the same input by more than a correct stack may."""
        if len(runs) < 2 or self.facts.get("later_run_only"):
            return False
        one, other = runs[0][0], runs[1][0]
        if self._red(one) != self._red(other):
            return True
        sizes = [float(run["roundings"]) for run in (one, other) if run.get("roundings") is not None]
        return len(sizes) == 2 and max(sizes) > RED and max(sizes) > 1.01 * min(sizes)

    def _red(self, run: dict[str, Any]) -> bool:
        return run.get("outcome") in FINDINGS

    def _against_reference(self, run: dict[str, Any]) -> None:
        size = run.get("roundings")
        self.facts["legal"] = run["outcome"] == "legal" or run.get("flushes", False)
        if size is None:
            return
        allowed = max(self.known["spread"], self.known.get("other_algorithm", 0.0))
        self.facts["unlike_peer"] = run["from_peer"] > RED
        self.facts["near_truth"] = size <= RED * max(1.0, self.known["spread"])
        if size * RED < self.known["peer"] > max(RED, OK * self.known["spread"]):  # the accused shows what a correct stack reaches
            self.facts["peer_wrong"] = True
        self.facts["order_explains"] = self.seen == "nondeterministic" and size <= RED * self.known["order"]
        self.facts["spread_explains"] = RED < size <= RED * allowed
        other = self.known.get("other_truth", 0.0)
        if other > RED and "from_other_truth" in run:
            agrees = run["from_other_truth"] <= RED
            self.facts["other_truth_right"] = agrees
            code = "other_truth" if agrees else "other_truth_open"
            self.evidence.append(Evidence(counter="truth", on="fp64", code=f"prove.evidence.{code}", roundings_ratio=other))

    def _after(self) -> None:
        found, answer = self._ask("after")
        if found["runs"]:
            red = self._red(found["runs"][0])
            self.facts["red_after"] = self.facts.get("red_after", False) or red
            self._note("after", "after", answer, run=found["runs"][0])

    def _chain(self, graph: Suspect) -> None:
        """From the front of the stack to its kernels, until one link is found broken."""
        self._exported(graph)
        if decide(self.facts).blame in ("exporter", "state", "reference") or self.facts.get("varies"):
            return
        self._coarsely_read()
        if self.facts.get("coarse_read"):
            return
        for spec in evaluators.plain_specs(self.backend):
            self._plain(spec)
            if self.facts.get("plain_right"):
                return
        if len(graph.steps) > 1:
            self._parts()
            if decide(self.facts).name == "between_ops":
                return
        self._decomposed()

    def _exported(self, graph: Suspect) -> None:
        if evaluators.of(self.backend, graph.computation()) is None:
            return
        found, answer = self._ask("exported")
        if "export_fails" in found:
            self.facts["export_fails"] = True
            self._note("exported", "export_fails", answer, run={"said": found["export_fails"]})
        elif found["runs"] and found["runs"][0].get("outcome") is not None and "by" in found:
            run = found["runs"][0]
            # An evaluator that agrees with neither the truth nor the stack may be wrong itself.
            alike = run.get("from_stack", 0.0) <= max(RED, run.get("roundings", 0.0) / RED)
            if run["outcome"] in GREEN or (self._red(run) and alike):
                self.facts["exported_right"] = run["outcome"] in GREEN
            self._note("exported", "exported" if alike or run["outcome"] in GREEN else "exported_unlike", answer, on=found["by"], run=run)
        else:
            self._note("exported", "no_evaluator", answer, on=found.get("by", self.backend.name), run={"said": found.get("said")})

    def _coarsely_read(self) -> None:
        if self.outcome not in ("imprecise", "wrong"):
            return
        found, answer = self._ask("coarsely_read")
        self.facts["coarse_read"] = "form" in found
        if "form" in found:
            self._note("coarse", "coarse_read", answer, run=found["runs"][0], form=found["form"])

    def _plain(self, spec: str) -> None:
        found, answer = self._ask("alone", backend=spec)
        run = found["runs"][0]
        if run["outcome"] in GREEN or self._red(run):
            self.facts["plain_right"] = run["outcome"] in GREEN
        self._note("plain", "plain", answer, on=spec, run=run)

    def _parts(self) -> None:
        found, answer = self._ask("parts")
        judged = [one for one in found["runs"] if one.get("outcome") in GREEN or self._red(one)]
        if not judged:
            return
        wrong = sum(map(self._red, judged))
        if wrong or len(judged) == len(found["runs"]):
            self.facts["parts_right"] = not wrong
        self._note("parts", "parts", answer, wrong=wrong, count=len(judged))
        if wrong:
            self._parts_apart()

    def _parts_apart(self) -> None:
        """Whether the ops at fault are right where no other has run before in their process."""
        found, answer = self._ask("parts_apart")
        judged = [one for one in found["runs"] if one.get("outcome") in GREEN or self._red(one)]
        if judged and len(judged) == len(found["runs"]):
            wrong = sum(map(self._red, judged))
            self.facts["right_apart"] = not wrong
            self._note("parts", "parts_apart", answer, wrong=wrong, count=len(judged))

    def _decomposed(self) -> None:
        found, answer = self._ask("decomposed")
        if found["runs"] and (found["runs"][0]["outcome"] in GREEN or self._red(found["runs"][0])):
            self.facts["decomposed_right"] = found["runs"][0]["outcome"] in GREEN
            self._note("decomposed", "decomposed", answer, run=found["runs"][0])

