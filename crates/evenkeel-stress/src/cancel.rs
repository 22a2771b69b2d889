//! One switch that stops a run from anywhere; it works across runtimes and threads.

use std::sync::Arc;

use tokio::sync::watch;

/// A switch that is off until [`Cancel::cancel`] is called, and on for ever after.
///
/// Clones share the switch.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<watch::Sender<bool>>);

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl Cancel {
    /// A switch that is off.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Stops everything that watches this switch.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was switched on.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is switched on.
    pub async fn cancelled(&self) {
        // An error would mean that the sender is gone, and `self` holds it.
        let _ = self.0.subscribe().wait_for(|on| *on).await;
    }
}
