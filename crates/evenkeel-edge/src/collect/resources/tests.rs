//! Figures of real processes and of a made-up system, and what is said of those that are not there.

use std::path::Path;

use super::*;
use crate::collect::reading::Reading;
use crate::process::procinfo;

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + second * 1000)
}

fn value(collected: &Collected, series: &str) -> Option<f64> {
    found(collected, series).map(|r| r.value)
}

fn found<'a>(collected: &'a Collected, series: &str) -> Option<&'a Reading> {
    collected.readings.iter().find(|r| &*r.series == series)
}

fn reason<'a>(collected: &'a Collected, series: &str) -> Option<&'a str> {
    let missing = collected.missing.iter().find(|m| &*m.series == series);
    missing.map(|m| m.reason.as_str())
}

fn api() -> Arc<str> {
    "api".into()
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A made-up system with one process in a group of its own.
struct Fake {
    dir: tempfile::TempDir,
}

impl Fake {
    fn new() -> Self {
        let fake = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fake.process(7, 100, 250, 4);
        fake.group_of("7", "0::/system.slice/api.service\n");
        fake.group_of("self", "0::/system.slice/evenkeel.service\n");
        fake
    }

    fn process(&self, pid: u32, begun: u64, cpu_ticks: u64, threads: u32) {
        let stat = format!(
            "{pid} (a b) S 1 {pid} {pid} 0 -1 4194560 1 0 0 0 {cpu_ticks} 50 0 0 20 0 {threads} 0 {begun} 1000000 2000 \
             18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        );
        write(&self.dir.path().join(format!("proc/{pid}/stat")), &stat);
    }

    fn group_of(&self, pid: &str, text: &str) {
        write(&self.dir.path().join(format!("proc/{pid}/cgroup")), text);
    }

    fn group_file(&self, name: &str, text: &str) {
        write(
            &self
                .dir
                .path()
                .join("cgroup/system.slice/api.service")
                .join(name),
            text,
        );
    }

    fn whole_group(&self, used: u64, throttled: u64, stalled_us: u64) {
        self.group_file("memory.current", &format!("{used}\n"));
        self.group_file("memory.max", "1000\n");
        self.group_file(
            "memory.events",
            "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n",
        );
        let stat = format!(
            "usage_usec 5\nnr_periods {}\nnr_throttled {throttled}\nthrottled_usec {}\n",
            throttled * 4,
            throttled * 1000
        );
        self.group_file("cpu.stat", &stat);
        let pressure = format!(
            "some avg10=1.50 avg60=0.00 avg300=0.00 total={stalled_us}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
        );
        for name in ["cpu.pressure", "memory.pressure", "io.pressure"] {
            self.group_file(name, &pressure);
        }
    }

    fn collector(&self) -> ResourceCollector {
        ResourceCollector::new(Roots {
            proc: self.dir.path().join("proc"),
            cgroup: self.dir.path().join("cgroup"),
        })
    }
}

fn process(pid: u32, start_ticks: u64) -> ProcessId {
    ProcessId {
        pid,
        start_ticks,
        boot_id: None,
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_real_process_has_figures() {
    let me = procinfo::identify(std::process::id()).unwrap();
    let mut collector = ResourceCollector::default();
    let first = collector.collect_one(&api(), std::slice::from_ref(&me), at(0));
    let rss = value(&first, "process/api/rss_bytes").unwrap();
    let pss = value(&first, "process/api/pss_bytes").unwrap();
    assert!(rss > 1e5 && pss > 1e5 && pss <= rss * 1.5, "{rss} {pss}");
    assert!(value(&first, "process/api/threads").unwrap() >= 1.0);
    assert_eq!(value(&first, "process/api/processes"), Some(1.0));
    assert_eq!(value(&first, "process/api/restarts"), Some(0.0));
    assert_eq!(
        value(&first, "process/api/cpu_cores"),
        None,
        "nothing to compare with"
    );
    let share = found(&first, "process/api/open_files_share");
    let open = value(&first, "process/api/open_files").unwrap();
    if let Some(share) = share {
        let ReadingKind::Share { n } = share.kind else {
            panic!("{share:?}");
        };
        assert!((share.value - open / n as f64).abs() < 1e-9);
    }
    // Its group is that of the reader.
    assert!(reason(&first, "cgroup/api/*").is_some(), "{first:?}");
    // One file more is one more.
    let held: Vec<_> = (0..50)
        .map(|_| std::fs::File::open("/dev/null").unwrap())
        .collect();
    // Work for at least a tick of the kernel's clock.
    let begun = procinfo::cpu_ms(&me).unwrap();
    while procinfo::cpu_ms(&me).unwrap() < begun + 30 {}
    let second = collector.collect_one(&api(), &[me], at(1));
    assert!(value(&second, "process/api/cpu_cores").unwrap() >= 0.03 - 1e-9);
    assert!(value(&second, "process/api/open_files").unwrap() >= 50.0);
    assert_eq!(
        value(&second, "process/api/pss_bytes"),
        None,
        "it is dear, and was read a second ago"
    );
    assert_eq!(reason(&second, "process/api/pss_bytes"), None);
    drop(held);
}

/// SAFETY 11
#[test]
fn what_has_ended_is_missing_and_no_zero() {
    let mut child = std::process::Command::new("sleep")
        .arg("30")
        .spawn()
        .unwrap();
    let id = procinfo::identify(child.id()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut collector = ResourceCollector::default();
    for processes in [&[id][..], &[]] {
        let collected = collector.collect_one(&api(), processes, at(0));
        assert!(reason(&collected, "process/api/*").is_some());
        assert!(
            collected
                .readings
                .iter()
                .all(|r| r.series.ends_with("/restarts")),
            "{collected:?}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_figures_of_a_group_are_read() {
    let fake = Fake::new();
    fake.whole_group(250, 10, 1_000_000);
    let mut collector = fake.collector();
    let first = collector.collect_one(&api(), &[process(7, 100)], at(0));
    assert_eq!(value(&first, "process/api/threads"), Some(4.0));
    let expected_cpu = 300.0 / procfs::ticks_per_second() as f64;
    assert_eq!(value(&first, "process/api/cpu_seconds"), Some(expected_cpu));
    assert_eq!(value(&first, "cgroup/api/memory_bytes"), Some(250.0));
    let share = found(&first, "cgroup/api/memory_share").unwrap();
    assert_eq!(
        (share.value, share.kind),
        (0.25, ReadingKind::Share { n: 1000 })
    );
    assert_eq!(value(&first, "cgroup/api/oom_kills"), Some(1.0));
    assert_eq!(value(&first, "cgroup/api/io_some_avg10"), Some(1.5));
    assert_eq!(value(&first, "cgroup/api/io_some_stalled"), None);
    assert!(
        first
            .missing
            .iter()
            .all(|m| m.series.starts_with("process/")),
        "{first:?}"
    );
    // There is no smaps_rollup, no limits and no fd in this made-up system.
    assert!(reason(&first, "process/api/pss_bytes").is_some());
    assert!(reason(&first, "process/api/open_files_share").is_some());

    fake.process(7, 100, 250 + procfs::ticks_per_second(), 4);
    fake.whole_group(500, 20, 2_500_000);
    let second = collector.collect_one(&api(), &[process(7, 100)], at(2));
    assert_eq!(value(&second, "process/api/cpu_cores"), Some(0.5));
    let share = found(&second, "cgroup/api/cpu_throttled_share").unwrap();
    assert_eq!(
        (share.value, share.kind),
        (0.25, ReadingKind::Share { n: 40 })
    );
    assert_eq!(
        value(&second, "cgroup/api/cpu_throttled_cores"),
        Some(0.005)
    );
    assert_eq!(value(&second, "cgroup/api/memory_some_stalled"), Some(0.75));

    // Another group of the same name: its counters begin anew, and no rate is told.
    fake.whole_group(1, 1, 10);
    let third = collector.collect_one(&api(), &[process(7, 100)], at(3));
    assert_eq!(value(&third, "cgroup/api/cpu_throttled_share"), None);
    assert_eq!(value(&third, "cgroup/api/memory_some_stalled"), None);
    assert_eq!(value(&third, "cgroup/api/memory_some_avg10"), Some(1.5));
}

/// SAFETY 11
#[cfg(target_os = "linux")]
#[test]
fn what_a_group_does_not_say_is_missing_with_its_reason() {
    let fake = Fake::new();
    let mut collector = fake.collector();
    let mut look = || collector.collect_one(&api(), &[process(7, 100)], at(0));
    assert!(
        reason(&look(), "cgroup/api/*")
            .unwrap()
            .contains("is not at")
    );
    fake.group_file("memory.current", "many\n");
    fake.group_file("memory.max", "max\n");
    fake.group_file("cpu.stat", "usage_usec 5\n");
    fake.group_file("memory.events", "oom 1\n");
    fake.group_file("cpu.pressure", "some avg10=200 total=1\n");
    let some = look();
    assert!(
        reason(&some, "cgroup/api/memory_bytes")
            .unwrap()
            .contains("no whole number")
    );
    assert!(
        reason(&some, "cgroup/api/oom_kills")
            .unwrap()
            .contains("oom_kill")
    );
    assert!(
        reason(&some, "cgroup/api/cpu_some_avg10")
            .unwrap()
            .contains("percentage")
    );
    assert!(
        reason(&some, "cgroup/api/io_full_stalled")
            .unwrap()
            .contains("io.pressure")
    );
    // No limit: neither a figure nor a fault.
    for series in ["cgroup/api/memory_share", "cgroup/api/cpu_throttled_share"] {
        assert_eq!(
            (value(&some, series), reason(&some, series)),
            (None, None),
            "{series}"
        );
    }
    assert!(
        some.readings
            .iter()
            .all(|r| !r.series.starts_with("cgroup/")),
        "{some:?}"
    );
    for (text, part) in [
        ("0::/system.slice/evenkeel.service\n", "shares"),
        ("0::/\n", "topmost"),
        ("3:cpu:/x\n", "version 2"),
        ("0::/../x\n", "cannot be seen"),
    ] {
        fake.group_of("7", text);
        let collected = look();
        assert!(
            reason(&collected, "cgroup/api/*").unwrap().contains(part),
            "{text}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn version_2_beside_version_1_is_found() {
    let fake = Fake::new();
    let root = fake.dir.path().join("cgroup/unified");
    write(&root.join("cgroup.controllers"), "");
    write(
        &root.join("system.slice/api.service/memory.current"),
        "77\n",
    );
    let collected = fake
        .collector()
        .collect_one(&api(), &[process(7, 100)], at(0));
    assert_eq!(value(&collected, "cgroup/api/memory_bytes"), Some(77.0));
}

#[cfg(target_os = "linux")]
#[test]
fn the_memory_of_a_group_is_that_of_a_group_of_its_own() {
    let fake = Fake::new();
    let roots = Roots {
        proc: fake.dir.path().join("proc"),
        cgroup: fake.dir.path().join("cgroup"),
    };
    // Without the controller.
    let error = roots.group_memory(&process(7, 100)).unwrap_err();
    assert!(error.contains("memory.stat"), "{error}");
    fake.group_file("memory.stat", "anon 5000\nfile 100\nsock 11\n");
    assert_eq!(
        roots.group_memory(&process(7, 100)),
        Ok(GroupMemory {
            directory: roots.cgroup.join("system.slice/api.service"),
            bytes: 5011
        })
    );
    // Another process with its number.
    assert!(roots.group_memory(&process(7, 101)).is_err());
    fake.group_of("self", "0::/system.slice/api.service\n");
    let error = roots.group_memory(&process(7, 100)).unwrap_err();
    assert!(error.contains("shares that of Evenkeel"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn another_main_process_is_a_restart_and_no_rate_goes_over_it() {
    let fake = Fake::new();
    fake.process(8, 900, 0, 1);
    let mut collector = fake.collector();
    collector.collect_one(&api(), &[process(7, 100)], at(0));
    let gone = collector.collect_one(&api(), &[], at(1));
    assert_eq!(value(&gone, "process/api/restarts"), None);
    let other = collector.collect_one(&api(), &[process(8, 900)], at(2));
    assert_eq!(value(&other, "process/api/restarts"), Some(1.0));
    assert_eq!(value(&other, "process/api/cpu_cores"), None);
    // A child that came since counts with all that it used; a clock that went back gives no rate.
    let two = [process(8, 900), process(7, 100)];
    let more = collector.collect_one(&api(), &two, at(4));
    let used = 300.0 / procfs::ticks_per_second() as f64;
    assert_eq!(value(&more, "process/api/cpu_cores"), Some(used / 2.0));
    assert_eq!(value(&more, "process/api/processes"), Some(2.0));
    let back = collector.collect_one(&api(), &two, at(3));
    assert_eq!(value(&back, "process/api/cpu_cores"), None);
    assert_eq!(value(&back, "process/api/restarts"), Some(1.0));
}

#[test]
fn too_many_processes_are_not_added_up() {
    let many: Vec<ProcessId> = (1..=600).map(|pid| process(pid, 1)).collect();
    let collected = ResourceCollector::default().collect_one(&api(), &many, at(0));
    assert!(reason(&collected, "process/api/*").unwrap().contains("512"));
}

#[test]
fn elsewhere_what_is_not_told_is_missing() {
    let me = procinfo::identify(std::process::id()).unwrap();
    let figures = portable::figures(&Roots::default(), &me, true).unwrap();
    assert!(figures.rss_bytes.unwrap() > 100_000);
    assert!(figures.pss_bytes.unwrap().is_err() && figures.threads.is_err());
    assert!(portable::group(&Roots::default(), &me).is_err());
    assert!(portable::group_memory(&Roots::default(), &me).is_err());
}
