//! Room for sockets: the limit of open files of this process, raised as far as its host allows.

#[cfg(unix)]
/// Files that are open beside the connections: the program's own, those that are written, and a few for the resolver.
const OTHER_FILES: u64 = 64;

/// Raises the soft limit of open files where `connections` need it.
#[cfg(unix)]
pub(super) fn make_room(connections: u64) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let needed = connections + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    // Nothing means no limit.
    if limit.current.is_none_or(|soft| soft >= needed) {
        return Ok(());
    }
    if let Some(hard) = limit.maximum.filter(|hard| *hard < needed) {
        return Err(format!(
            "{connections} connections need {needed} open files, and this host allows {hard} (the hard limit, `ulimit -Hn`); raise it, or use at most {} connections",
            hard.saturating_sub(OTHER_FILES)
        ));
    }
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(needed),
            maximum: limit.maximum,
        },
    )
    .map_err(|e| {
        format!(
            "{connections} connections need {needed} open files, and the limit cannot be raised: {e}; raise it with `ulimit -n`, or use fewer connections"
        )
    })
}

/// Elsewhere there is no such limit to raise.
#[cfg(not(unix))]
pub(super) fn make_room(_connections: u64) -> Result<(), String> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_hard_limit_is_told_before_the_run() {
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        assert_eq!(make_room(1), Ok(()));
        match hard {
            Some(hard) => {
                let refused = make_room(hard).unwrap_err();
                assert!(refused.contains("hard limit"), "{refused}");
            }
            None => println!("skipped: this host has no hard limit of open files"),
        }
    }
}
