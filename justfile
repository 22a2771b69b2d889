# Every recipe is a plain command: without `just`, copy the line.

# Format, clippy, tests, purity: what a change must pass
ci:
    .ci/run

# The README's test command
test:
    cargo test --workspace

# The figures of docs/src/benchmarks.md, as a table
bench:
    cargo bench -p evenkeel --bench figures

# The ledger against this disk and one core, as a table of ratios; names of figures after it measure only these
bench-ledger *figures:
    cargo bench -p evenkeel-ledger --bench ledger -- {{figures}}

# What a request costs `evenkeel load`, beside wrk and oha on nginx (needs nginx and wrk, and a machine with nothing else to do)
bench-load:
    cargo build --release
    python3 docs/load/bench.py

# Detection on labelled, synthetic and shifted series, as a table; `data` has NAB in `nab` and Microsoft's set in `cloud`
bench-detect data="bench/detect" series_months="10000":
    cargo bench -p evenkeel-detect --bench detect -- --data {{data}} --series-months {{series_months}}

# A million simulated cycles, worlds with one fault or none, a year without a gap, mutations of the core; most of an hour
sim seeds="420000" jobs="2":
    cargo run --profile sim -p evenkeel-sim -- --seeds {{seeds}} --jobs {{jobs}}
    cargo run --profile sim -p evenkeel-sim -- --mix permanent --seeds 2000 --jobs {{jobs}}
    cargo run --profile sim -p evenkeel-sim -- --mix telemetry --seeds 2000 --jobs {{jobs}}
    cargo run --profile sim -p evenkeel-sim -- --mix calm --days 365 --seeds 4 --every-check --jobs {{jobs}}
    cargo test -p evenkeel-sim --release -- --ignored

# Attacks, power losses, failing disks and kills for the ledger, at length; a quarter of an hour
torture seed="1":
    cargo test --release -p evenkeel-ledger --test attacks -- --ignored
    cargo run --release -p evenkeel-torture -- power-loss --states 100000 --seed {{seed}}
    cargo run --release -p evenkeel-torture -- io-faults --seed {{seed}}
    cargo run --release -p evenkeel-torture -- kill --rounds 10000 --seed {{seed}}
    cargo run --release -p evenkeel-torture -- rollback

# Real faults on the real Grace, one after the other, with a table at the end; half an hour
chaos faults="200" seed="1":
    cargo build --release
    python3 docs/chaos/chaos.py --faults {{faults}} --seed {{seed}}

# Roots, proofs and notes judged by Go's sumdb packages and by pymerkle too (a network or a package mirror; installs in
# a virtual environment of its own)
interop:
    python3 docs/interop/interop.py
