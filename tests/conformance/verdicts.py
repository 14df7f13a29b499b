"""Compares two reports of Autobahn's cases: the gateway may change no verdict.

verdicts.py DIRECT GATEWAY LEAST: two directories and how many cases there must be.
"""

import json
import sys
from pathlib import Path


def verdicts(directory):
    index = json.loads((Path(directory) / "index.json").read_text())
    (agent,) = index.values()
    return {case: (v["behavior"], v["behaviorClose"]) for case, v in agent.items()}


direct, gateway = verdicts(sys.argv[1]), verdicts(sys.argv[2])
wrong = [
    f"  {case}: {direct.get(case)} directly, {gateway.get(case)} through the gateway"
    for case in sorted(direct.keys() | gateway.keys())
    if direct.get(case) != gateway.get(case)
]
passed = sum(v[0] in ("OK", "INFORMATIONAL", "NON-STRICT") for v in gateway.values())
print(f"{len(gateway)} cases, {passed} passed, {len(wrong)} verdicts differ")
print("\n".join(wrong))
# A run that never got to the cases would differ in nothing.
sys.exit(bool(wrong) or len(direct) < int(sys.argv[3]))
