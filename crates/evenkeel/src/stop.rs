//! Asking for a stop: Ctrl-C, SIGTERM, or the program that embeds Evenkeel.

use std::time::Duration;

use tokio::sync::watch;

/// Tells whether a stop was asked for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop {
    asked: watch::Receiver<bool>,
    ask: watch::Sender<bool>,
}

/// Asks for a stop.
#[derive(Clone, Debug)]
pub struct Stopper(watch::Sender<bool>);

/// A pair of both.
pub fn pair() -> (Stopper, Stop) {
    let (tx, rx) = watch::channel(false);
    (Stopper(tx.clone()), Stop { asked: rx, ask: tx })
}

impl Stopper {
    /// Asks. Asking twice is fine.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// A [`Stop`] of this stopper.
    pub fn subscribe(&self) -> Stop {
        Stop {
            asked: self.0.subscribe(),
            ask: self.0.clone(),
        }
    }
}

impl Stop {
    /// Whether it was asked.
    pub fn is_requested(&self) -> bool {
        *self.asked.borrow()
    }

    /// Asks, from inside: whoever listens may also find that it has to end.
    pub(crate) fn ask(&self) {
        self.ask.send_replace(true);
    }

    /// Ready once it was asked.
    pub async fn requested(&self) {
        let mut rx = self.asked.clone();
        if rx.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for `time`; false when a stop was asked for before it was over.
    pub async fn sleep(&self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.requested() => false,
        }
    }
}

/// Time after the first signal within which the process ends, whatever hangs.
const LAST_RESORT: Duration = Duration::from_millis(9_500);

/// Asks for a stop at the first SIGINT or SIGTERM, and ends the process at the second one, or when the stop takes
/// longer than 9.5 seconds: the next start goes on from the ledger.
pub fn on_signals(stopper: Stopper) {
    at_signals("finishing the step under way", move || stopper.stop());
}

/// As [`on_signals`], for whatever else can be stopped; `doing` says what happens then.
pub(crate) fn at_signals(doing: &'static str, stop: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        let Some(name) = signal().await else { return };
        eprintln!("{name}: {doing}; once more ends at once");
        stop();
        tokio::select! {
            _ = signal() => {}
            () = tokio::time::sleep(LAST_RESORT) => {}
        }
        std::process::exit(130);
    });
}

#[cfg(unix)]
async fn signal() -> Option<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut int = signal(SignalKind::interrupt()).ok()?;
    let mut term = signal(SignalKind::terminate()).ok()?;
    tokio::select! {
        _ = int.recv() => Some("interrupted"),
        _ = term.recv() => Some("terminated"),
    }
}

#[cfg(not(unix))]
async fn signal() -> Option<&'static str> {
    tokio::signal::ctrl_c().await.ok().map(|()| "interrupted")
}
