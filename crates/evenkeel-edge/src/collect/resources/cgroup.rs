//! The files of one control group, version 2.
//!
//! Read directly and bounded. Their form is that of the kernel's `Documentation/admin-guide/cgroup-v2.rst` and
//! `Documentation/accounting/psi.rst`.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::{Figure, GroupFigures, Pressure, Throttling};

/// Largest file of a control group that is read, in bytes.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// The whole text of a file, with its name in the reason if it cannot be read.
pub(super) fn read(path: &Path) -> Figure<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut text = String::new();
    let read = File::open(path).and_then(|f| f.take(FILE_LEN_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(len) if len as u64 > FILE_LEN_MAX => Err(format!("{name} is too long")),
        Ok(_) => Ok(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(format!(
            "there is no {name}: this kernel or this group does not have it"
        )),
        Err(e) => Err(format!("{name} cannot be read: {e}")),
    }
}

/// The path of the group of version 2 in a `/proc/PID/cgroup`.
pub(super) fn path_in(text: &str) -> Figure<String> {
    let path = text.lines().find_map(|l| l.strip_prefix("0::"));
    let path = path.ok_or("this host has no control groups of version 2")?;
    // Behind the end of a namespace, and a group that is gone.
    if !path.starts_with('/')
        || path.split('/').any(|part| part == "..")
        || path.ends_with(" (deleted)")
    {
        return Err(format!(
            "its control group `{path}` cannot be seen from here"
        ));
    }
    Ok(path.to_owned())
}

/// What the group at this directory says.
pub(super) fn figures(dir: &Path) -> Figure<GroupFigures> {
    if !dir.is_dir() {
        return Err(format!("its control group is not at {}", dir.display()));
    }
    let file = |name: &str| read(&dir.join(name));
    let number = |name: &str| file(name).and_then(|text| whole(name, text.trim()));
    let memory_max_bytes = file("memory.max").and_then(|text| match text.trim() {
        "max" => Ok(None),
        other => whole("memory.max", other).map(Some),
    });
    let mut pressure = Vec::new();
    for (name, some, full) in [
        ("cpu.pressure", "cpu_some", "cpu_full"),
        ("memory.pressure", "memory_some", "memory_full"),
        ("io.pressure", "io_some", "io_full"),
    ] {
        let text = file(name);
        for (series, line) in [(some, "some"), (full, "full")] {
            let figure = text.clone().and_then(|text| pressure_in(name, line, &text));
            pressure.push((series, figure));
        }
    }
    Ok(GroupFigures {
        memory_bytes: number("memory.current"),
        memory_max_bytes,
        oom_kills: file("memory.events").and_then(|text| {
            keyed(&text, "oom_kill").map_or_else(
                || Err("memory.events has no oom_kill".to_owned()),
                |n| whole("memory.events", n),
            )
        }),
        throttling: file("cpu.stat").and_then(|text| throttling_in(&text)),
        pressure,
    })
}

/// Lines of `memory.stat` whose memory the kernel cannot take back by dropping a page of a file. Of them only `anon` is in
/// every kernel.
const KEPT: [&str; 7] = [
    "anon",
    "shmem",
    "slab_unreclaimable",
    "kernel_stack",
    "pagetables",
    "percpu",
    "sock",
];

/// Bytes that the group at this directory is charged with and that stay its own under pressure: neither cache of files
/// nor what of the kernel's can be dropped.
pub(super) fn kept_bytes(dir: &Path) -> Figure<u64> {
    kept_in(&read(&dir.join("memory.stat"))?)
}

fn kept_in(text: &str) -> Figure<u64> {
    let mut sum: u64 = 0;
    for key in KEPT {
        match keyed(text, key) {
            Some(value) => sum = sum.saturating_add(whole("memory.stat", value)?),
            None if key == "anon" => return Err("memory.stat has no anon".to_owned()),
            None => {}
        }
    }
    Ok(sum)
}

fn whole(file: &str, text: &str) -> Figure<u64> {
    text.parse()
        .map_err(|_| format!("{file} cannot be understood: no whole number"))
}

/// The value of a key in lines of `KEY VALUE`.
fn keyed<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.split_once(' ').filter(|(k, _)| *k == key))
        .map(|(_, value)| value.trim())
}

/// `None` when the controller is not on: then these keys are not there at all.
fn throttling_in(text: &str) -> Figure<Option<Throttling>> {
    let Some(periods) = keyed(text, "nr_periods") else {
        return Ok(None);
    };
    let other = |key| {
        let value = keyed(text, key).ok_or_else(|| format!("cpu.stat has no {key}"))?;
        whole("cpu.stat", value)
    };
    Ok(Some(Throttling {
        periods: whole("cpu.stat", periods)?,
        throttled: other("nr_throttled")?,
        throttled_us: other("throttled_usec")?,
    }))
}

/// `some avg10=0.12 avg60=0.05 avg300=0.01 total=5678`.
fn pressure_in(file: &str, line: &str, text: &str) -> Figure<Pressure> {
    let found = text
        .lines()
        .find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
    let found = found.ok_or_else(|| format!("{file} has no line `{line}`"))?;
    let field = |key: &str| {
        let mut fields = found
            .split_ascii_whitespace()
            .filter_map(|f| f.split_once('='));
        let value = fields.find(|(k, _)| *k == key).map(|(_, v)| v);
        value.ok_or_else(|| format!("{file} has no {key}"))
    };
    let avg10: f64 = field("avg10")?
        .parse()
        .map_err(|_| format!("{file} cannot be understood: no number"))?;
    if !(0.0..=100.0).contains(&avg10) {
        return Err(format!("{file} cannot be understood: no percentage"));
    }
    let total_us = whole(file, field("total")?)?;
    Ok(Pressure { avg10, total_us })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_group_of_version_2_is_found() {
        assert_eq!(
            path_in("4:memory:/x\n0::/system.slice/a.service\n").unwrap(),
            "/system.slice/a.service"
        );
        assert!(path_in("4:memory:/x\n").is_err());
        assert!(path_in("0::/../b\n").is_err());
        assert!(path_in("0::/a.service (deleted)\n").is_err());
        assert!(path_in("").is_err());
    }

    #[test]
    fn pressure_is_read_strictly() {
        let page = "some avg10=0.12 avg60=0.05 avg300=0.01 total=5678\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        let some = pressure_in("cpu.pressure", "some", page).unwrap();
        assert_eq!(
            some,
            Pressure {
                avg10: 0.12,
                total_us: 5678
            }
        );
        for bad in [
            "",
            "some",
            "some avg10=x total=1",
            "some avg10=NaN total=1",
            "some avg10=1 total=-1",
            "some avg10=1",
        ] {
            let error = pressure_in("cpu.pressure", "some", bad).unwrap_err();
            assert!(error.starts_with("cpu.pressure "), "{error}");
        }
        assert!(pressure_in("cpu.pressure", "full", "some avg10=0 total=0").is_err());
    }

    #[test]
    fn what_is_kept_is_no_cache_of_files() {
        let page = "anon 4096\nfile 900000\nkernel 20480\nkernel_stack 16384\npagetables 8192\nsock 100\nshmem 12288\n\
             inactive_file 800000\nslab_reclaimable 7777\nslab_unreclaimable 3333\nslab 11110\n";
        assert_eq!(kept_in(page), Ok(4096 + 16384 + 8192 + 100 + 12288 + 3333));
        assert_eq!(kept_in("anon 0\n"), Ok(0));
        for bad in ["", "file 1\n", "anon x\n", "anon 1\nshmem -1\n"] {
            let error = kept_in(bad).unwrap_err();
            assert!(error.starts_with("memory.stat "), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cpu.stat");
        std::fs::write(&path, " ".repeat(100_000)).unwrap();
        assert_eq!(read(&path).unwrap_err(), "cpu.stat is too long");
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in "(some|full|nr_periods|oom_kill| |=|\n|avg10|total|[0-9.a-z-]){0,30}") {
            let _ = (pressure_in("f", "some", &text), throttling_in(&text), path_in(&text), kept_in(&text));
        }
    }
}
