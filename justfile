# Every recipe is a plain command: without `just`, copy the line.

# Format, clippy, tests, purity: what a change must pass
ci:
    .ci/run

# Type-check and lint, warnings denied
check:
    cargo clippy --workspace --all-targets -- -D warnings

# The README's test command
test:
    cargo test --workspace

# The whole loop on a real service with a real fault; `just demo error-spike` for another one
demo scenario="memory-leak":
    cargo run --release -- demo --scenario {{scenario}}

# The figures of docs/src/benchmarks.md, as a table
bench:
    cargo bench -p evenkeel --bench figures

# API documentation
doc:
    cargo doc --workspace --no-deps

# The book (needs mdbook)
book:
    mdbook build docs

# Format
fmt:
    cargo fmt --all

# Licences and advisories (needs cargo-deny)
deny:
    cargo deny check

# Many more seeds through the simulator than the test command runs; minutes
sim:
    cargo test -p evenkeel-sim --release -- --ignored
