//! Any bytes are a page: no panic, no line that is both read and wrong, and what is canonical reads as itself.

#![no_main]
#![expect(dead_code, unreachable_pub, unused_imports, reason = "the parser as it stands in the product, of which a part is used")]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/evenkeel-edge/src/collect"]
mod collect {
    pub mod exposition;
}

use collect::exposition::{self, Entry, Exposition, Format};

fuzz_target!(|page: &[u8]| {
    let lines = page.iter().filter(|b| **b == b'\n').count() as u64 + 1;
    for format in [Format::Prometheus, Format::OpenMetrics] {
        let mut read = Exposition::new(page, format);
        let mut entries = 0;
        for entry in read.by_ref() {
            entries += 1;
            let Entry::Sample(sample) = entry else { continue };
            assert_eq!(sample.labels.iter().count(), sample.labels.len());
            let Ok(canonical) = sample.labels.canonical(&sample.name.unescape(), &[]) else {
                continue;
            };
            let line = format!("{canonical} 1\n");
            let mut again = Exposition::new(line.as_bytes(), format);
            let Some(Entry::Sample(twice)) = again.next() else {
                // An escape or a quote more can make a line too long, and nothing else.
                assert!(line.len() > exposition::LINE_LEN_MAX, "{canonical:?}");
                continue;
            };
            let same = twice.labels.canonical(&twice.name.unescape(), &[]);
            assert_eq!(same.as_deref(), Ok(canonical.as_str()));
        }
        assert!(entries + read.faults().count <= lines);
    }
});
