//! What one can ask of a supervisor.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use evenkeel_core::playbook::action::SignalName;

use super::stop::send;
use super::{Origin, RestartReport, Slot, StartReport, StopReport, Supervisor, millis_since};
use crate::process::control::Sent;
use crate::process::error::SuperviseError;

impl Supervisor {
    /// Starts every service that does not run, each when those it depends on are ready, and waits until all are.
    ///
    /// What is in the way of any of them (a taken port, a service that one can only attach to and that is not
    /// there) is found before the first one is started.
    pub async fn start_all(&self) -> Result<Vec<StartReport>, SuperviseError> {
        let order = self.ordered()?;
        for slot in &order {
            let _operation = slot.operation.lock().await;
            if self.inner.find_running(slot).await?.is_none() {
                self.inner.check_startable(slot)?;
            }
        }
        let mut reports = Vec::with_capacity(order.len());
        for slot in order {
            let _operation = slot.operation.lock().await;
            reports.push(self.inner.start(slot).await?);
        }
        Ok(reports)
    }

    /// Starts a service unless it runs, and waits until it is ready: at most its `start_timeout_ms`.
    pub async fn start(&self, name: &str) -> Result<StartReport, SuperviseError> {
        let slot = self.inner.slot(name)?;
        let _operation = slot.operation.lock().await;
        self.needs_are_met(slot)?;
        self.inner.start(slot).await
    }

    /// Ends a service with all its processes: SIGTERM, and SIGKILL when `graceful` (its `stop_timeout_ms` when
    /// absent) is over. Does nothing when it does not run. Processes that were stopped by a signal are woken, so
    /// that they can take the SIGTERM.
    pub async fn stop(
        &self,
        name: &str,
        graceful: Option<Duration>,
    ) -> Result<StopReport, SuperviseError> {
        let slot = self.inner.slot(name)?;
        let _operation = slot.operation.lock().await;
        self.inner.try_attach(slot);
        self.inner.stop(slot, graceful).await
    }

    /// Ends a service as [`Self::stop`] does, starts it again, and waits until it is ready. What would keep it from
    /// starting again, as far as it can be known, is an error before it is ended.
    pub async fn restart(
        &self,
        name: &str,
        graceful: Option<Duration>,
    ) -> Result<RestartReport, SuperviseError> {
        let slot = self.inner.slot(name)?;
        let _operation = slot.operation.lock().await;
        if slot.spec.command.is_empty() {
            return Err(SuperviseError::NoCommand {
                name: name.to_owned(),
            });
        }
        self.needs_are_met(slot)?;
        self.inner.check_ports(slot)?;
        self.inner.write_records()?;
        let begun = Instant::now();
        self.inner.find_running(slot).await?;
        let stopped = self.inner.stop(slot, graceful).await?;
        let stopped_ms = millis_since(begun);
        let started = self.inner.start(slot).await?;
        Ok(RestartReport {
            name: name.to_owned(),
            old: stopped.process,
            new: started.process,
            forced: stopped.forced,
            stopped_ms,
            took_ms: millis_since(begun),
        })
    }

    /// Sends a signal to the service's main process. Waits for nothing.
    pub async fn signal(&self, name: &str, signal: SignalName) -> Result<(), SuperviseError> {
        let slot = self.inner.slot(name)?;
        let _operation = slot.operation.lock().await;
        self.inner.try_attach(slot);
        let not_running = || SuperviseError::NotRunning {
            name: name.to_owned(),
        };
        let run = slot.run().ok_or_else(not_running)?;
        let asked = run.asked.load(Ordering::Relaxed);
        if matches!(
            signal,
            SignalName::Term | SignalName::Int | SignalName::Kill
        ) {
            run.asked.store(true, Ordering::Relaxed);
        }
        match send(slot, &run.process, signal) {
            Ok(Sent::Delivered) => Ok(()),
            Ok(Sent::Gone) => Err(not_running()),
            Err(e) => {
                run.asked.store(asked, Ordering::Relaxed);
                Err(e)
            }
        }
    }

    /// Waits until a running service is ready: at most `timeout`, or its `start_timeout_ms`.
    pub async fn wait_ready(
        &self,
        name: &str,
        timeout: Option<Duration>,
    ) -> Result<StartReport, SuperviseError> {
        let slot = self.inner.slot(name)?;
        let _operation = slot.operation.lock().await;
        let begun = Instant::now();
        self.inner.try_attach(slot);
        let run = slot.run().ok_or_else(|| SuperviseError::NotRunning {
            name: name.to_owned(),
        })?;
        let run = self.inner.wait_ready(slot, run, timeout).await?;
        Ok(StartReport {
            name: name.to_owned(),
            process: run.process.clone(),
            was_running: true,
            took_ms: millis_since(begun),
        })
    }

    /// Ends every service that Evenkeel started, now or in an earlier life, each before those it depends on.
    /// Services that somebody else started go on running. Goes through to the last one, whatever happens on the way.
    pub async fn stop_all(&self) -> Result<Vec<StopReport>, Vec<SuperviseError>> {
        let mut reports = Vec::new();
        let mut errors = Vec::new();
        let order = self.ordered().map_err(|e| vec![e])?;
        for slot in order.into_iter().rev() {
            let _operation = slot.operation.lock().await;
            if slot.run().is_some_and(|r| r.origin == Origin::Attached) {
                continue;
            }
            match self.inner.stop(slot, None).await {
                Ok(report) => reports.push(report),
                Err(e) => errors.push(e),
            }
        }
        if errors.is_empty() {
            Ok(reports)
        } else {
            Err(errors)
        }
    }

    fn ordered(&self) -> Result<Vec<&Slot>, SuperviseError> {
        let order = self
            .inner
            .target
            .start_order()
            .ok_or(SuperviseError::Circle)?;
        order.iter().map(|s| self.inner.slot(&s.name)).collect()
    }

    /// Whether what the service depends on runs and was seen ready.
    fn needs_are_met(&self, slot: &Slot) -> Result<(), SuperviseError> {
        for dependency in &slot.spec.depends_on {
            let needed = self.inner.slot(dependency)?;
            self.inner.try_attach(needed);
            let is_up = needed.run().is_some_and(|run| {
                // One that was taken up and not asked yet gets the benefit of the doubt.
                run.ready.load(Ordering::Relaxed) || run.origin != Origin::Started
            });
            if !is_up {
                return Err(SuperviseError::DependencyNotReady {
                    name: slot.name().to_owned(),
                    dependency: dependency.clone(),
                });
            }
        }
        Ok(())
    }
}
