"""Gives the verdicts of pymerkle on material that Evenkeel printed. Started by interop.py, in an environment that has
pymerkle: material on standard input, verdicts on standard output.

pymerkle writes proofs in a form of its own. Of inclusion it is the RFC's list with the leaf before it. Its proofs of
consistency go deeper than the RFC's, so it only makes some itself, between the roots that Evenkeel stated.
"""

import json
import sys

from pymerkle import InmemoryTree, verify_consistency
from pymerkle.core import _inclusion_path_layout
from pymerkle.proof import InclusionProof, InvalidProof

material = json.load(sys.stdin)
tree = InmemoryTree(algorithm="sha256")
for leaf in material["leaves"]:
    tree.append_entry(bytes.fromhex(leaf))
roots = [tree.get_root(size).hex() for size in range(1, len(material["leaves"]) + 1)]


def included(case):
    index, size = case["index"] + 1, case["size"]
    leaf = bytes.fromhex(case["leaf"])
    path = [leaf] + [bytes.fromhex(one) for one in case["hashes"]]
    try:
        rule = _inclusion_path_layout(index, size)[0] if index <= size else []
        proof = InclusionProof("sha256", True, size, index, rule, path)
        proof.verify(leaf, bytes.fromhex(case["root"]), index=index, size=size, algorithm="sha256")
        return True
    except InvalidProof:
        return False


def same_proof(case):
    made = tree.prove_inclusion(case["index"] + 1, case["size"])
    return [one.hex() for one in made.path[1:]] == case["hashes"]


def grown(case):
    made = tree.prove_consistency(case["old"], case["new"])
    try:
        verify_consistency(bytes.fromhex(case["old_root"]), bytes.fromhex(case["new_root"]), made,
            prior_size=case["old"], later_size=case["new"], algorithm="sha256")
        return True
    except InvalidProof:
        return False


def true(cases):
    return [case for case in cases if not case["spoiled"]]


json.dump({
    "roots": roots,
    "inclusion": [included(case) for case in material["inclusion"]],
    "same_proofs": [same_proof(case) for case in true(material["inclusion"])],
    "grown": [grown(case) for case in true(material["consistency"])],
}, sys.stdout)
