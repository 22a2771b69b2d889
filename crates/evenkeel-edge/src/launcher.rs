//! Starting programs from a thread that keeps the priority this process began with.
//!
//! A child inherits the priority of the thread that starts it. So that Evenkeel can lower its own and the services it
//! starts keep the full one, one thread is made before that and starts all programs. Linux only, where a priority is a
//! thread's; elsewhere, and where [`keep_priority`] was not called, programs are started where they are asked for.

use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

type Job = Box<dyn FnOnce() + Send>;

/// Programs that wait to be started; who asks for one more waits.
const JOBS_MAX: usize = 16;

static LAUNCHER: OnceLock<SyncSender<Job>> = OnceLock::new();

/// From here on programs are started by a thread with the priority of now. To be called once, before the priority is
/// lowered.
///
/// # Errors
/// The thread cannot be made.
pub fn keep_priority() -> std::io::Result<()> {
    let (jobs, waiting) = sync_channel::<Job>(JOBS_MAX);
    std::thread::Builder::new()
        .name("launcher".to_owned())
        .spawn(move || {
            for job in waiting {
                job();
            }
        })?;
    let _ = LAUNCHER.set(jobs);
    Ok(())
}

/// Lowers the priority of the calling thread, and of every thread and program that it starts from here on, to this
/// niceness: 0 to 19. Whoever was started with a lower priority already keeps it.
///
/// # Errors
/// The system does not allow it. On systems other than Linux nothing is done.
pub fn lower_priority(niceness: u8) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let wanted = i32::from(niceness.min(19));
        if rustix::process::getpriority_process(None)? < wanted {
            rustix::process::setpriority_process(None, wanted)?;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
    Ok(())
}

/// Does `start` in the launcher's thread, if there is one.
pub(crate) fn launch<T: Send + 'static>(start: impl FnOnce() -> T + Send + 'static) -> T {
    let Some(jobs) = LAUNCHER.get() else {
        return start();
    };
    let (done, result) = sync_channel(1);
    let job: Job = Box::new(move || {
        let _ = done.send(start());
    });
    assert!(
        jobs.send(job).is_ok(),
        "the launcher lives as long as the process"
    );
    result
        .recv()
        .expect("the launcher does every job it was given")
}
