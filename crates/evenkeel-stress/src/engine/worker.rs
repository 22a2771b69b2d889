//! One worker: it owns a connection, or a stream of one, and takes one request after the other.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::alarm::{Alarm, Alarms};
use super::http1::{Connection, Failure, Scratch};
use super::http2::{self, Link};
use super::judge::Keeper;
use super::open::{Arrival, Arrivals};
use super::shared::Shared;
use super::tally::{End, Ended, Part};
use crate::dial::ConnectFailure;
use crate::plan::Think;
use crate::random::Random;
use crate::request::Prepared;

/// What the workers of one thread share.
pub(crate) struct Local {
    pub(crate) shared: Arc<Shared>,
    pub(crate) part: RefCell<Part>,
    pub(crate) scratch: Scratch,
    pub(crate) alarms: Alarms,
    /// When the run began; known once all connections are open.
    pub(crate) epoch: Cell<Instant>,
    /// The arrivals of an open loop.
    pub(crate) arrivals: Option<Arrivals>,
}

impl Local {
    /// The run begins; each worker says so, and the first is heard.
    pub(crate) fn begin(&self, epoch: Instant) {
        self.epoch.set(epoch);
        if let Some(arrivals) = &self.arrivals
            && let Some(ends) = self.shared.ends(epoch)
        {
            arrivals.begin(epoch, ends + self.shared.plan.limits.request);
        }
    }

    pub(crate) fn warm_until(&self) -> Instant {
        self.epoch.get() + self.shared.plan.warm_up
    }
}

/// A way to the target.
enum Way {
    /// A connection of its own, or what came of opening it.
    Http1(Option<Result<Connection, ConnectFailure>>),
    /// A connection shared with others.
    Http2(Rc<Link>),
}

/// Takes requests until there are no more.
pub(crate) struct Worker {
    local: Rc<Local>,
    way: Way,
    alarm: Alarm,
    random: Random,
}

/// How one request went.
struct Asked {
    end: End,
    sent_at: Instant,
    /// Bytes of the request.
    sent: u64,
    received: u64,
}

impl Worker {
    /// The `number`th worker of all; opens its connection.
    pub(crate) async fn open(local: Rc<Local>, link: Option<Rc<Link>>, number: u64) -> Self {
        let mut worker = Self {
            way: link.map_or(Way::Http1(None), Way::Http2),
            alarm: local.alarms.add(),
            random: Random::new(local.shared.plan.seed, 1_000_000 + number),
            local,
        };
        // So many at once that a listening target's queue can take them.
        let shared = Arc::clone(&worker.local.shared);
        let Ok(_permit) = shared.opening.acquire().await else {
            return worker;
        };
        match &mut worker.way {
            Way::Http1(slot) if shared.plan.transport.keep_alive => {
                *slot = Some(dial(&worker.local).await);
            }
            Way::Http1(_) => {}
            // A failure is met again, and counted, with the first request.
            Way::Http2(link) => {
                if let Ok((_, true)) = link.open(&shared.dialer).await {
                    worker.local.part.borrow_mut().opened += 1;
                }
            }
        }
        worker
    }

    /// A closed loop.
    pub(crate) async fn run_closed(mut self, think: Think) {
        let local = Rc::clone(&self.local);
        let warm_until = local.warm_until();
        // The clock is read once a request: the end of one is the beginning of the next.
        let mut now = Instant::now();
        while let Some((turn, counted)) = local.shared.take_turn(now, warm_until) {
            now = self.request(&local, turn, now, now, counted).await;
            let pause = pause(think, &mut self.random);
            if !pause.is_zero() && !local.shared.stopped() {
                tokio::time::sleep(pause).await;
                now = Instant::now();
            }
        }
    }

    /// An open loop.
    pub(crate) async fn run_open(mut self) {
        let local = Rc::clone(&self.local);
        let Some(arrivals) = &local.arrivals else {
            return;
        };
        let mut free = Instant::now();
        loop {
            if local.shared.stopped() {
                // Others wait in line, or for answers that are not going to come.
                local.shared.stop.cancel();
                return;
            }
            let Some(Arrival { due, counted }) = arrivals.next(free).await else {
                return;
            };
            let now = Instant::now();
            if counted {
                let could = due.max(free);
                let ends = local.shared.ends(local.epoch.get());
                local.part.borrow_mut().left(could, now, ends);
            }
            let turn = local.shared.next_turn();
            free = self.request(&local, turn, due, now, counted).await;
        }
    }

    /// Makes a request that was due at `due`, at `begun`; when it ended.
    async fn request(
        &mut self,
        local: &Local,
        turn: u64,
        due: Instant,
        begun: Instant,
        counted: bool,
    ) -> Instant {
        let shared = &local.shared;
        let index = shared.turns.index(turn);
        let what = shared.turns.request(index);
        let row = shared.turns.row(turn);
        if counted {
            local.part.borrow_mut().begin(due);
        }
        let asked = self.ask(local, what, row, begun).await;
        let now = Instant::now();
        let limit = shared.plan.limits.request;
        let at_least = if matches!(asked.end, End::Timeout { .. }) {
            limit
        } else {
            Duration::ZERO
        };
        // The timer may fire a tick early by the clock that is read here.
        let latency = now.saturating_duration_since(due).max(at_least);
        let service = now.saturating_duration_since(asked.sent_at).max(at_least);
        let mut end = asked.end;
        if let (End::Good { status }, Some(within)) = (&end, what.within)
            && latency > within
        {
            end = End::BadAnswer {
                status: *status,
                kind: "assertion".to_owned(),
                message: format!(
                    "{}: a good answer after {:.1} ms, limit {} ms",
                    what.name,
                    latency.as_secs_f64() * 1000.0,
                    within.as_secs_f64() * 1000.0
                ),
                code: None,
            };
        }
        shared.note_timeout(end.timed_out());
        if counted {
            let mut part = local.part.borrow_mut();
            part.sent += asked.sent;
            part.received += asked.received;
            let answered = matches!(end, End::Good { .. } | End::BadAnswer { .. });
            if answered && shared.ends(local.epoch.get()).is_none_or(|e| now <= e) {
                part.answered_in_time += 1;
            }
            let ended = Ended {
                index,
                latency,
                service,
                end,
            };
            part.end(ended, now);
        }
        now
    }

    async fn ask(
        &mut self,
        local: &Local,
        what: &Prepared,
        row: Option<&[String]>,
        begun: Instant,
    ) -> Asked {
        let shared = &local.shared;
        let limits = &shared.plan.limits;
        let timeout = || End::Timeout {
            message: format!(
                "{}: no complete answer within {} ms",
                what.name,
                limits.request.as_millis()
            ),
        };
        match &mut self.way {
            Way::Http1(slot) => {
                self.alarm.set(begun + limits.request);
                let keep_alive = shared.plan.transport.keep_alive;
                let request = what.http1(row, !keep_alive);
                let ask = ask_http1(local, slot, &request, what, begun, &self.alarm);
                let asked = ask.await;
                self.alarm.clear();
                asked.unwrap_or_else(|(sent_at, sent)| Asked {
                    end: timeout(),
                    sent_at,
                    sent,
                    received: 0,
                })
            }
            Way::Http2(link) => {
                let ask = ask_http2(local, link, what, row);
                match tokio::time::timeout(limits.request, ask).await {
                    Ok(asked) => asked,
                    Err(_) => Asked {
                        end: timeout(),
                        sent_at: begun,
                        sent: 0,
                        received: 0,
                    },
                }
            }
        }
    }
}

fn pause(think: Think, random: &mut Random) -> Duration {
    think.min + think.max.saturating_sub(think.min).mul_f64(random.unit())
}

async fn dial(local: &Local) -> Result<Connection, ConnectFailure> {
    let stream = local.shared.dialer.dial().await?;
    local.part.borrow_mut().opened += 1;
    Ok(Connection::new(stream, Rc::clone(&local.scratch)))
}

/// Asks once, over the connection that is there or a new one; when it timed out, the moment it was sent and its bytes,
/// none where no connection opened.
///
/// A connection that the target had closed while it was idle is replaced once, as every client does; the request had
/// not left.
async fn ask_http1(
    local: &Local,
    slot: &mut Option<Result<Connection, ConnectFailure>>,
    request: &[u8],
    what: &Prepared,
    begun: Instant,
    alarm: &Alarm,
) -> Result<Asked, (Instant, u64)> {
    let no_answer = |kind, message: String, sent_at, sent| Asked {
        end: End::NoAnswer {
            kind,
            message: format!("{}: {message}", what.name),
        },
        sent_at,
        sent,
        received: 0,
    };
    let to_head = what.method == http::Method::HEAD;
    let mut fresh = false;
    let mut sent_at = begun;
    loop {
        let opened = if let Some(opened) = slot.take() {
            opened
        } else {
            fresh = true;
            let Some(opened) = until(alarm, dial(local)).await else {
                return Err((Instant::now(), 0));
            };
            sent_at = Instant::now();
            opened
        };
        let mut connection = match opened {
            Ok(connection) => connection,
            Err((kind, message)) => return Ok(no_answer(kind, message, sent_at, 0)),
        };
        let mut keeper = Keeper::new(what, local.shared.plan.limits.body_bytes);
        let length = request.len() as u64;
        return match connection.ask(request, to_head, &mut keeper, alarm).await {
            Ok(answer) => {
                if answer.reusable && local.shared.plan.transport.keep_alive {
                    *slot = Some(Ok(connection));
                }
                Ok(Asked {
                    end: keeper.judge(answer.status),
                    sent_at,
                    sent: length,
                    received: answer.received,
                })
            }
            Err(Failure::Stale) if !fresh => continue,
            Err(Failure::Stale) => {
                let message = "the connection was closed before the request left".to_owned();
                Ok(no_answer("reset", message, sent_at, 0))
            }
            Err(Failure::Timeout) => Err((sent_at, length)),
            Err(Failure::Reset(message)) => Ok(no_answer("reset", message, sent_at, length)),
            Err(Failure::Protocol(violation)) => Ok(no_answer(
                "protocol",
                violation.to_string(),
                sent_at,
                length,
            )),
        };
    }
}

/// What comes of `future`, or nothing when the alarm goes off before.
async fn until<T>(alarm: &Alarm, future: impl Future<Output = T>) -> Option<T> {
    use std::task::Poll;

    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => alarm.poll(cx).map(|()| None),
    })
    .await
}

async fn ask_http2(local: &Local, link: &Link, what: &Prepared, row: Option<&[String]>) -> Asked {
    let no_answer = |(kind, message): (&'static str, String), sent_at, sent| Asked {
        end: End::NoAnswer {
            kind,
            message: format!("{}: {message}", what.name),
        },
        sent_at,
        sent,
        received: 0,
    };
    let begun = Instant::now();
    let Some(request) = what.http2(row) else {
        let unsendable = ("local", "a row of the data makes it unsendable".to_owned());
        return no_answer(unsendable, begun, 0);
    };
    let sender = match link.open(&local.shared.dialer).await {
        Ok((sender, opened)) => {
            local.part.borrow_mut().opened += u64::from(opened);
            sender
        }
        Err(failure) => return no_answer(failure, begun, 0),
    };
    let length = request.body().len() as u64;
    let mut keeper = Keeper::new(what, local.shared.plan.limits.body_bytes);
    let sent_at = Instant::now();
    match http2::ask(sender, request, &mut keeper).await {
        Ok(answer) => {
            if !local.shared.plan.transport.keep_alive {
                link.close();
            }
            Asked {
                end: keeper.judge(answer.status),
                sent_at,
                sent: length,
                received: answer.received,
            }
        }
        Err(failure) => no_answer(failure, sent_at, length),
    }
}
