#!/usr/bin/env python3
"""Real faults on the real Grace, at random moments, one after the other: what Evenkeel notices, heals, and must not touch.

    cargo build --release && python3 docs/chaos/chaos.py [--faults 200] [--seed 1] [--program target/release/evenkeel]

Grace runs with her two processes, her database and her settings; `evenkeel run` guards her in mode auto. A client writes
through her API the whole time and keeps what was acknowledged. Faults come from a seed: processes are killed or stopped,
settings are spoiled as a bad deploy would, another process locks the database, an upstream is slow, Evenkeel itself is
killed in the middle of a heal. Between them come things that are no fault: a burst of load, a reader of the database, a
comment in the settings, a restart of Evenkeel; whatever is done then is a wrong act.

Nothing is believed that Evenkeel says of itself but when it found something, when it closed the cycle, and which steps it
ran: these are read from its ledger. That a fault is gone is looked at here: Grace answers what the fault had broken, the
process is another one, the lock and the bad value are gone. In the end every acknowledged write must be in the database.

SIGTERM or Ctrl-C ends it in good order, with the table of what was done so far. Limits are raised so that so many faults fit into an hour; the rest is as it ships. Python's standard library only; Linux.
Exit 0: at least 95 % healed, the rest alerted, no wrong act, nothing lost. 1: not so. 2: it could not be run.
"""

import argparse
import collections
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

LIMITS = """
[limits]
heals_per_hour = 1000
heals_per_day = 10000
heals_per_service_hour = 1000
heals_per_service_day = 10000
restarts_per_service_hour = 1000
flaps = 32
flap_window_s = 60
quiet_s = 1
breaker_cycles = 100
"""
DETECT_LIMIT, HEAL_LIMIT, QUIET_LIMIT = 90, 120, 60


OVER = threading.Event()


class Failed(Exception):
    """It cannot go on."""


def until(what, limit, ask):
    """Asks until there is an answer."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.02)
    raise Failed(f"waited {limit} s in vain for: {what}")


class World:
    """Grace, Evenkeel, and what is known of both from outside."""

    def __init__(self, program, data, verbose):
        self.program, self.data, self.verbose = str(program), data, verbose
        self.evenkeel = None
        self.beside = []
        said = subprocess.run(
            [self.program, "demo", "--scenario", "healthy", "--data-dir", data], capture_output=True, text=True, timeout=180)
        if said.returncode != 0:
            raise Failed(f"the healthy demo failed: {said.stdout[-2000:]}{said.stderr[-2000:]}")
        config = data / "evenkeel.toml"
        text = config.read_text()
        text = text.replace("[healing]\n", "[healing]\nrecurrence_window_s = 0\n").replace("interval_ms = 1000", "interval_ms = 500")
        config.write_text(text + LIMITS)
        self.settings = data / "config" / "grace.toml"
        # Grace keeps the newest decisions only; here every acknowledged one is looked for in the end.
        self.spoil([("governance", "history_rows", "200000")])
        self.good = self.settings.read_text()
        self.port = int(re.search(r'base_url = "http://127.0.0.1:(\d+)"', text).group(1))
        self.ledger = data / "backend" / "grace.db"
        self.database = data / "backend" / "grace_data.db"
        self.order("mode", "auto")

    def order(self, *words):
        subprocess.run([self.program, "--config", self.data / "evenkeel.toml", "--data-dir", self.data, *words],
                       check=True, capture_output=True, timeout=60)

    def start(self):
        out = open(self.data / "campaign.out", "ab")
        self.evenkeel = subprocess.Popen(
            [self.program, "--config", self.data / "evenkeel.toml", "--data-dir", self.data, "run"],
            stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def stop(self):
        if self.evenkeel and self.evenkeel.poll() is None:
            self.evenkeel.terminate()
            try:
                self.evenkeel.wait(15)
            except subprocess.TimeoutExpired:
                self.evenkeel.kill()
                self.evenkeel.wait()

    def end(self):
        self.stop()
        for child in self.beside:
            child.kill()
            child.wait()
        for name in ("api", "metrics-collector"):
            pid = self.pid(name)
            if pid:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def pid(self, name):
        """The process of a service, by its command line: what Evenkeel writes of it is not asked."""
        wanted = [b"grace", name.encode(), b"--settings", b"config/grace.toml"]
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")[1:5]
                here = os.readlink(entry / "cwd") == str(self.data)
                alive = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
            except (OSError, IndexError):
                continue
            if line == wanted and here and alive:
                return int(entry.name)
        return None

    def rows(self, where, *values):
        """Entries of the ledger, read only."""
        try:
            db = sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True, timeout=5)
            try:
                return db.execute(
                    f"SELECT sequence, timestamp, action, result, payload FROM immutable_log WHERE {where} ORDER BY sequence",
                    values).fetchall()
            finally:
                db.close()
        except sqlite3.Error:
            return []

    def head(self):
        rows = self.rows("sequence = (SELECT max(sequence) FROM immutable_log)")
        return rows[0][0] if rows else 0

    def since(self, mark, action):
        return self.rows("sequence > ? AND action = ?", mark, action)

    def ask(self, method, path, body=None, timeout=3):
        """Status of an answer; 0 when none comes."""
        try:
            c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
            c.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
            answer = c.getresponse()
            answer.read()
            c.close()
            return answer.status
        except (OSError, http.client.HTTPException):
            return 0

    def well(self):
        """Grace answers her health, a decision and a report, three times in a row."""
        for _ in range(3):
            if self.ask("GET", "/health") != 200 or self.ask("GET", "/api/governance/policies") != 200:
                return False
            if self.ask("POST", "/api/governance/decide",
                        {"subject": "campaign", "action": "read", "resource": "report"}) // 100 != 2:
                return False
        return bool(self.pid("api") and self.pid("metrics-collector"))

    def open_cycle(self):
        opened = self.rows("action = 'start_healing_cycle'")
        closed = self.rows("action = 'complete_healing_cycle'")
        return len(opened) > len(closed)

    def quiet(self):
        """No cycle, Grace is well, and for two checks nothing new."""
        def still():
            if self.open_cycle() or not self.well():
                return False
            mark = self.head()
            time.sleep(1.2)
            return not self.open_cycle() and not self.since(mark, "anomaly_detected")
        until("quiet", QUIET_LIMIT, still)

    def watching(self, mark):
        """Evenkeel has booted, tested, and healed what it found."""
        until("the stress test", 120, lambda: self.since(mark, "complete_stress_test"))
        until("the baseline", 60, lambda: self.since(mark, "establish_baseline"))

    def spoil(self, changes):
        """A bad deploy: other settings, and the service started with them."""
        text = self.settings.read_text()
        for table, key, value in changes:
            text, n = re.subn(rf"(?ms)(^\[{table}\]$.*?^{key} = )[^\n]*", rf"\g<1>{value}", text, count=1)
            if n != 1:
                raise Failed(f"no [{table}] {key} in Grace's settings")
        self.settings.write_text(text)

    def value(self, table, key):
        found = re.search(rf"(?ms)^\[{table}\]$.*?^{key} = ([^\n]*)", self.settings.read_text())
        return found.group(1).split("#")[0].strip() if found else None

    def run_beside(self, *args):
        child = subprocess.Popen([self.program, "grace", *args], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        child.stdout.readline()
        self.beside.append(child)
        return child


class Writer(threading.Thread):
    """Users who write all the time, and remember what was acknowledged."""

    def __init__(self, world, seed):
        super().__init__(daemon=True)
        self.world, self.name_of, self.acknowledged = world, f"user-{seed}", []
        self.refused, self.over = 0, threading.Event()

    def run(self):
        n = 0
        while not self.over.wait(0.05):
            n += 1
            subject = f"{self.name_of}-{n}"
            status = self.world.ask("POST", "/api/governance/decide",
                                    {"subject": subject, "action": "write", "resource": f"doc-{n}"}, timeout=5)
            if status // 100 == 2:
                self.acknowledged.append((subject, f"doc-{n}"))
            else:
                self.refused += 1

    def lost(self):
        """Acknowledged writes that the database does not have."""
        db = sqlite3.connect(f"file:{self.world.database}?mode=ro", uri=True, timeout=30)
        kept = set(db.execute("SELECT subject, resource FROM decisions WHERE action = 'write'"))
        db.close()
        return [w for w in self.acknowledged if w not in kept]


# Each fault: how it is made (gives what tells that it is gone), and what a heal of it may touch.

def killed(name, how):
    def make(world, rng):
        pid = until(f"a process of {name}", 30, lambda: world.pid(name))
        os.kill(pid, how)
        return lambda: world.pid(name) not in (None, pid)
    return make


def both_killed(world, rng):
    gone = [killed(n, signal.SIGKILL)(world, rng) for n in ("api", "metrics-collector")]
    return lambda: all(g() for g in gone)


def killed_twice(world, rng):
    gone = killed("api", signal.SIGKILL)(world, rng)
    until("the first restart", HEAL_LIMIT, gone)
    return killed("api", signal.SIGKILL)(world, rng)


def healer_killed(world, rng):
    mark = world.head()
    gone = killed("api", signal.SIGKILL)(world, rng)
    action = rng.choice(["start_healing_cycle", "take_snapshot", "start_step", "finish_step"])
    until(action, DETECT_LIMIT, lambda: world.since(mark, action))
    world.evenkeel.kill()
    world.evenkeel.wait()
    time.sleep(rng.random())
    world.start()
    return gone


def locked(world, rng):
    child = world.run_beside("hold-lock", "--db", str(world.database), "--for", "120")
    return lambda: child.poll() is not None


def starved(world, rng):
    """One worker and no queue: no playbook that is mapped to what is seen cures it, so a person is called."""
    return deployed([("server", "workers", "1"), ("server", "queue", "0")], lambda w: number(w, "server", "workers") > 1)(
        world, rng)


def slow_upstream(world, rng):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world.run_beside("upstream", "--listen", f"127.0.0.1:{port}", "--delay-ms", "2500", "--concurrency", "64")
    return deployed([("chat", "upstream_url", f'"http://127.0.0.1:{port}"'), ("chat", "upstream_timeout_ms", "10000")],
                    lambda w: number(w, "chat", "upstream_timeout_ms") < 2500)(world, rng)


def healer_stopped(world, rng):
    """The healer sleeps while the service dies, and wakes."""
    world.evenkeel.send_signal(signal.SIGSTOP)
    gone = killed("api", signal.SIGKILL)(world, rng)
    time.sleep(2)
    world.evenkeel.send_signal(signal.SIGCONT)
    return gone


def deployed(changes, good):
    """Found by the stress test of the next start, as after a deploy."""
    def make(world, rng):
        world.stop()
        world.spoil(changes)
        os.kill(world.pid("api"), signal.SIGKILL)
        world.start()
        return lambda: good(world)
    return make


def number(world, table, key):
    return float(world.value(table, key).replace("_", ""))


FAULTS = {
    "kill -9 of the api": (6, killed("api", signal.SIGKILL), {"api"}),
    "kill -9 of the collector": (4, killed("metrics-collector", signal.SIGKILL), {"metrics-collector"}),
    "kill -9 of both": (2, both_killed, {"api", "metrics-collector"}),
    "kill -9 again after the restart": (2, killed_twice, {"api"}),
    "SIGSTOP of the api": (4, killed("api", signal.SIGSTOP), {"api"}),
    "SIGTERM of the api": (2, killed("api", signal.SIGTERM), {"api"}),
    "the database locked by another": (4, locked, {"api"}),
    "Evenkeel killed in the middle of a heal": (4, healer_killed, {"api"}),
    "Evenkeel stopped for two seconds": (2, healer_stopped, {"api"}),
    "deploy: one worker and no queue": (1, starved, {"api", "server.workers", "server.queue", "limits.requests_per_second",
        "limits.burst"}),
    "deploy: a slow upstream": (2, slow_upstream, {"api", "chat.upstream_timeout_ms", "chat.max_concurrent"}),
    "deploy: cache without a bound": (3, deployed([("sessions", "max_entries", "0")],
        lambda w: number(w, "sessions", "max_entries") > 0), {"api", "metrics-collector", "sessions.max_entries"}),
    "deploy: pool of one": (3, deployed([("database", "pool_size", "1"), ("database", "pool_timeout_ms", "5")],
        lambda w: number(w, "database", "pool_size") > 1 and number(w, "database", "pool_timeout_ms") > 5),
        {"api", "database.pool_size", "database.pool_timeout_ms"}),
    "deploy: rate limit too low": (3, deployed([("limits", "requests_per_second", "5.0"), ("limits", "burst", "3")],
        lambda w: number(w, "limits", "requests_per_second") > 5), {"api", "limits.requests_per_second", "limits.burst"}),
}


def burst(world, rng):
    for _ in range(150):
        world.ask("GET", "/api/governance/policies")


def reader(world, rng):
    db = sqlite3.connect(f"file:{world.database}?mode=ro", uri=True, timeout=5)
    db.execute("BEGIN")
    db.execute("SELECT count(*) FROM decisions").fetchone()
    time.sleep(2)
    db.close()


def comment(world, rng):
    world.settings.write_text(world.settings.read_text() + f"# looked at {time.time()}\n")
    time.sleep(1)


def restarted(world, rng):
    world.stop()
    mark = world.head()
    world.start()
    world.watching(mark)


BENIGN = {
    "no fault: a burst of load": burst,
    "no fault: a long reader of the database": reader,
    "no fault: a comment in the settings": comment,
    "no fault: a restart of Evenkeel": restarted,
}


def seconds(timestamp):
    """Of an entry's time, since the epoch."""
    import datetime
    return datetime.datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def touched(payload):
    """The services and the settings that a prepared step changes."""
    action = json.loads(payload).get("prepared", {}).get("action", {})
    found = set()
    for name in ("restart", "stop", "start", "signal"):
        services = action.get(name, {}).get("services", [])
        found |= {services} if isinstance(services, str) else set(services)
    undo = json.loads(payload).get("prepared", {}).get("undo", [])
    for op in undo:
        for change in op.get("keys", []):
            if change.get("before") != change.get("after"):
                found.add(change["key"])
    return found


class Tally:
    """What became of one kind of fault."""

    def __init__(self):
        self.made = self.detected = self.healed = self.alerted = self.wrong = 0
        self.to_detect, self.to_heal, self.problems = [], [], []


def one_fault(world, rng, kind, tally):
    _, make, allowed = FAULTS[kind]
    mark, begun = world.head(), time.time()
    is_gone = make(world, rng)
    tally.made += 1
    found = until("the detection", DETECT_LIMIT, lambda: world.since(mark, "start_healing_cycle")
                  or world.since(mark, "anomaly_detected"))
    tally.detected += 1
    tally.to_detect.append(max(0.0, seconds(found[0][1]) - begun))
    until("the end of the heal", HEAL_LIMIT, lambda: world.since(mark, "complete_healing_cycle") and not world.open_cycle())
    # Nobody asks the healer: what the fault had broken works, and its cause is gone.
    try:
        closed = until("Grace, and a cycle that ended with success", 40, lambda: is_gone() and not world.open_cycle() and [
            c for c in world.since(mark, "complete_healing_cycle") if c[3] == "success"] and world.well() and [
            c for c in world.since(mark, "complete_healing_cycle") if c[3] == "success"])
        tally.healed += 1
        tally.to_heal.append(max(0.0, seconds(closed[-1][1]) - begun))
    except Failed as e:
        if world.since(mark, "alert_human"):
            tally.alerted += 1
            tally.problems.append("not healed: a person was alerted")
        else:
            tally.problems.append(f"neither healed nor alerted: {e}")
    for _, _, _, _, payload in world.since(mark, "start_step"):
        strangers = touched(payload) - allowed
        if strangers:
            tally.wrong += 1
            tally.problems.append(f"touched {strangers}")
    return mark


def one_benign(world, rng, kind, tally):
    mark = world.head()
    BENIGN[kind](world, rng)
    time.sleep(2)
    tally.made += 1
    acts = world.since(mark, "start_step")
    if acts:
        tally.wrong += len(acts)
        tally.problems.append(f"{len(acts)} step(s) without a fault: {acts[0][4][:300]}")


def put_right(world, mark):
    """After a fault that was not healed: as it was in the beginning."""
    world.stop()
    for child in world.beside:
        child.kill()
        child.wait()
    world.beside.clear()
    world.settings.write_text(world.good)
    pid = world.pid("api")
    if pid:
        os.kill(pid, signal.SIGKILL)
    time.sleep(1)
    world.order("repaired", "--why", "the campaign put it right")
    mark = world.head()
    world.start()
    world.watching(mark)


def campaign(args, data):
    rng = random.Random(args.seed)
    tallies = collections.OrderedDict((k, Tally()) for k in [*FAULTS, *BENIGN])
    world = World(Path(args.program).resolve(), data, args.verbose)
    writer = Writer(world, args.seed)
    began = time.monotonic()
    try:
        mark = world.head()
        world.start()
        world.watching(mark)
        writer.start()
        world.quiet()
        kinds = [k for k, (weight, *_) in FAULTS.items() for _ in range(weight)]
        made = 0
        while made < args.faults and not OVER.is_set():
            time.sleep(rng.random() * 0.7)
            had = {k: len(t.problems) for k, t in tallies.items()}
            if rng.random() < 0.2:
                kind = rng.choice(list(BENIGN))
                one_benign(world, rng, kind, tallies[kind])
            else:
                kind = rng.choice(kinds)
                made += 1
                healed = tallies[kind].healed
                try:
                    one_fault(world, rng, kind, tallies[kind])
                except Failed as e:
                    tallies[kind].problems.append(str(e))
                if tallies[kind].healed == healed:
                    # What was handed over is repaired by a person, and nothing of it stays for the next fault.
                    put_right(world, world.head())
            try:
                world.quiet()
            except Failed as e:
                tallies[kind].problems.append(f"afterwards: {e}")
                put_right(world, world.head())
                try:
                    world.quiet()
                except Failed as e:
                    tallies[kind].problems.append(f"put right in vain: {e}")
            if args.verbose or made % 20 == 0:
                problems = tallies[kind].problems[had[kind]:] or [""]
                print(f"{made:4} {kind} {problems[-1]}", file=sys.stderr, flush=True)
        writer.over.set()
        writer.join()
        until("Grace at the end", 60, world.well)
        lost = writer.lost()
        alerts = len(world.rows("action = 'alert_human'"))
    finally:
        writer.over.set()
        world.end()
    return tallies, writer, lost, alerts, time.monotonic() - began


def span(times):
    return f"{statistics.median(times):6.2f} {max(times):6.2f}" if times else "     -      -"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", default="target/release/evenkeel")
    parser.add_argument("--keep", action="store_true", help="keep the directory")
    parser.add_argument("--verbose", action="store_true", help="a line for each")
    args = parser.parse_args()
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, lambda *_: OVER.set())
    data = Path(tempfile.mkdtemp(prefix="evenkeel-chaos-")) / "data"
    try:
        tallies, writer, lost, alerts, took = campaign(args, data)
    except (Failed, subprocess.SubprocessError, OSError) as e:
        print(f"chaos, seed {args.seed}: {e}; see {data}", file=sys.stderr)
        return 2
    print(f"{'':42}  made found healed alerted wrong | found after (median, worst s) | healed after")
    for kind, t in tallies.items():
        if t.made:
            print(f"{kind:42} {t.made:5} {t.detected:5} {t.healed:6} {t.alerted:7} {t.wrong:5} | "
                  f"{span(t.to_detect):>29} | {span(t.to_heal)}")
    faults = [t for k, t in tallies.items() if k in FAULTS]
    made, healed = sum(t.made for t in faults), sum(t.healed for t in faults)
    alerted, wrong = sum(t.alerted for t in faults), sum(t.wrong for t in tallies.values())
    print(f"\nseed {args.seed}: {made} faults in {took:.0f} s: {healed} healed and verified ({100 * healed / max(made, 1):.1f} %), "
          f"{alerted} alerted, {wrong} wrong acts, {alerts} alerts in all")
    print(f"users: {len(writer.acknowledged)} writes acknowledged, {len(lost)} of them lost, {writer.refused} refused meanwhile")
    for kind, t in tallies.items():
        for problem in t.problems:
            print(f"  {kind}: {problem}")
    good = healed >= 0.95 * made and healed + alerted == made and wrong == 0 and not lost
    if good and not args.keep:
        shutil.rmtree(data.parent, ignore_errors=True)
    else:
        print(f"kept: {data}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
