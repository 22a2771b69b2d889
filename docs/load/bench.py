#!/usr/bin/env python3
"""What a request costs the one who makes it: `evenkeel load` beside wrk and oha, on nginx.

    cargo build --release && python3 docs/load/bench.py [--program target/release/evenkeel] [--seconds 5] [--rounds 7]

nginx (Debian's, one worker, a file of 1 KB, loopback) is pinned to one processor and the maker of load to another. Throughput
is then nginx's, so what is compared is processor time, user and system, of the whole process for a million requests, in
rounds in which each makes load in turn: the ratio to wrk is that of one round, and its median over the rounds is told.
Then: how late an open loop sends at half the capacity that was measured, memory over short and long runs, and ten thousand
connections at a low rate.

Needs nginx and wrk; oha (`cargo install oha`) is left out where it is missing. Linux, two processors, Python's standard
library. Other work on the machine spoils the figures: nothing else should run. It ends by itself; everything is loopback.
Exit 0: it was measured. 2: something is missing.
"""

import argparse
import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NGINX = """
worker_processes 1;
error_log {dir}/error.log;
pid {dir}/nginx.pid;
worker_rlimit_nofile 65536;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 3600s;
  client_body_temp_path {dir}/1; proxy_temp_path {dir}/2; fastcgi_temp_path {dir}/3; uwsgi_temp_path {dir}/4; scgi_temp_path {dir}/5;
  server {{ listen 127.0.0.1:{port} backlog=4096; root {dir}/html; }}
}}
"""
SERVER, MAKER = 0, 1


def missing(what):
    print(f"{what} is missing", file=sys.stderr)
    raise SystemExit(2)


class Nginx:
    def __init__(self, dir):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        (dir / "html").mkdir()
        (dir / "html" / "1k.txt").write_text("x" * 1024)
        for path in [dir, dir / "html", dir / "html" / "1k.txt"]:
            path.chmod(0o755)
        conf = dir / "nginx.conf"
        conf.write_text(NGINX.format(dir=dir, port=self.port))
        program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx") or missing("nginx")
        self.child = subprocess.Popen(
            ["taskset", "-c", str(SERVER), program, "-c", str(conf), "-g", "daemon off;"], stderr=subprocess.DEVNULL
        )
        self.url = f"http://127.0.0.1:{self.port}/1k.txt"
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        missing("an nginx that starts")

    def end(self):
        self.child.terminate()
        self.child.wait(10)


def run(command, files=None):
    """Standard output, processor seconds (user, system), and the most memory in MB (1,000,000 bytes)."""
    def limits():
        if files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    out = tempfile.TemporaryFile()
    # A small process in between: memory is then that of the program, and not of this one before it became it.
    child = subprocess.Popen(
        ["sh", "-c", '"$@"', "sh", "taskset", "-c", str(MAKER), *command],
        stdout=out, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, preexec_fn=limits,
    )
    peak = 0
    while True:
        pid, status, used = os.wait4(child.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, resident(child.pid))
        time.sleep(0.1)
    out.seek(0)
    return out.read().decode(), (used.ru_utime, used.ru_stime), peak


def resident(parent):
    """Resident memory of the children of `parent`, in MB."""
    total = 0
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for child in children:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{child}/status").read_text())
            total = max(total, int(found.group(1)) * 1024 / 1e6 if found else 0)
    except OSError:
        pass
    return total


def evenkeel(program, url, *args):
    return [program, "load", url, "--json", *args]


def made(name, text):
    if name == "wrk":
        return int(re.search(r"(\d+) requests in", text).group(1))
    if name == "oha":
        return sum(json.loads(text)["statusCodeDistribution"].values())
    return json.loads(text)["requests"]


def closed_loop(program, nginx, seconds, rounds):
    makers = {
        "wrk": ["wrk", "-t1", "-c50", f"-d{seconds}s", nginx.url],
        "evenkeel": evenkeel(program, nginx.url, "-c", "50", "-d", f"{seconds}s"),
    }
    oha = shutil.which("oha") or next((str(p) for p in [Path.home() / ".cargo/bin/oha"] if p.exists()), None)
    if oha:
        makers["oha"] = [oha, "--no-tui", "--output-format", "json", "-c", "50", "-z", f"{seconds}s", nginx.url]
    figures = {name: [] for name in makers}
    for _ in range(rounds):
        for name, command in makers.items():
            text, used, memory = run(command)
            count = made(name, text)
            figures[name].append((sum(used) / count * 1e6, used[0] / count * 1e6, count / seconds, memory))
    print(f"\nclosed loop, 50 connections, {seconds} s, {rounds} rounds")
    print(f"{'':12}{'requests/s':>12}{'CPU s/million':>15}{'of it user':>12}{'over wrk':>10}{'(least, most)':>17}{'MB':>7}")
    for name, all in figures.items():
        ratios = sorted(a[0] / w[0] for a, w in zip(all, figures["wrk"]))
        cpu, user, rate, memory = (statistics.median(x[i] for x in all) for i in range(4))
        span = f"{ratios[0]:.2f}, {ratios[-1]:.2f}"
        print(f"{name:12}{rate:12,.0f}{cpu:15.2f}{user:12.2f}{statistics.median(ratios):10.2f}{span:>17}{memory:7.1f}")
    return statistics.median(x[2] for x in figures["evenkeel"])


def open_loop(program, nginx, rate, seconds):
    text, used, memory = run(evenkeel(program, nginx.url, "-c", "50", "-d", f"{seconds}s", "--rate", f"{rate:.0f}", "--yes-really"))
    report = json.loads(text)
    late = report["send_lateness_ms"]
    print(f"\nopen loop at half the capacity: {rate:,.0f} a second for {seconds} s, invalid: {report.get('invalid')}")
    print(f"lateness of sends: p50 {late['p50']} ms, p99 {late['p99']} ms, max {late['max']} ms")


def memory(program, nginx, long):
    for seconds in [2, long]:
        text, _, memory = run(evenkeel(program, nginx.url, "-c", "50", "-d", f"{seconds}s"))
        print(f"memory of a run of {seconds} s, {json.loads(text)['requests']:,} requests: {memory:.1f} MB")


def many(program, nginx, seconds):
    text, used, memory = run(
        evenkeel(program, nginx.url, "-c", "10000", "-d", f"{seconds}s", "--rate", "1000", "--yes-really"), files=20_000
    )
    report = json.loads(text)
    print(
        f"10,000 connections, 1,000 a second, {seconds} s: {report['connections_opened']:,} opened, "
        f"{report['requests']:,} requests, errors {report['errors']}, {memory:.1f} MB"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/evenkeel")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--long", type=int, default=60, help="seconds of the long run whose memory is looked at")
    args = parser.parse_args()
    if not shutil.which("wrk"):
        missing("wrk")
    if len(os.sched_getaffinity(0)) < 2:
        missing("a second processor")
    program = str(Path(args.program).resolve())
    with tempfile.TemporaryDirectory() as dir:
        os.chmod(dir, 0o755)
        nginx = Nginx(Path(dir))
        try:
            capacity = closed_loop(program, nginx, args.seconds, args.rounds)
            open_loop(program, nginx, capacity / 2, args.seconds * 2)
            memory(program, nginx, args.long)
            many(program, nginx, 10)
        finally:
            nginx.end()


if __name__ == "__main__":
    main()
