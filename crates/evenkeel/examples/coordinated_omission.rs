//! Draws the two plots of the book's page on coordinated omission from a real run: a server under a constant rate that
//! is stopped (SIGSTOP) for part of it.
//!
//! `cargo run -p evenkeel --example coordinated_omission -- docs/src` takes half a minute and writes the two SVG files
//! there; it prints what was measured beside what the closed form says.
//!
//! The load engine keeps histograms, not single requests. So its requests go through a relay in this process that
//! notes when each passed, by the number in its path; the server behind the relay is a process of its own, and it alone
//! is stopped. When a request was *due* follows from its number, since the rate is constant.

use std::error::Error;

#[cfg(unix)]
fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("serve") => run::serve(),
        Some(dir) => run::measure(std::path::Path::new(dir)),
        None => Err("say where the plots are to be written: docs/src".into()),
    }
}

#[cfg(not(unix))]
fn main() -> Result<(), Box<dyn Error>> {
    Err("this needs SIGSTOP".into())
}

#[cfg(unix)]
mod run {
    use std::error::Error;
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::sync::{Arc, Condvar, Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use evenkeel::load::plot::{Axis, Colour, Plot, Shape};
    use evenkeel_stress::{BaseUrl, Cancel, Outcome, Plan, Rate, RequestSpec, Rows};
    use rustix::process::{Pid, Signal, kill_process};

    /// Requests a second.
    const RATE: f64 = 200.0;
    /// Seconds of the run.
    const RUN_S: f64 = 30.0;
    /// When the server is stopped, in seconds after the first request.
    const PAUSE_AT_S: f64 = 10.0;
    /// For how long.
    const PAUSE_S: f64 = 3.0;
    const CONNECTIONS: u32 = 16;
    /// What the server takes for a request.
    const WORK: Duration = Duration::from_millis(2);
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    /// One request: its number, when it passed the relay, and when its answer did.
    type Passed = (usize, Instant, Instant);

    #[derive(Default)]
    struct Log {
        passed: Mutex<Vec<Passed>>,
        first: (Mutex<Option<Instant>>, Condvar),
    }

    impl Log {
        fn sent(&self) -> Instant {
            let now = Instant::now();
            let mut first = self.first.0.lock().unwrap_or_else(PoisonError::into_inner);
            if first.is_none() {
                *first = Some(now);
                self.first.1.notify_all();
            }
            now
        }

        fn wait_for_first(&self) -> Result<Instant, Box<dyn Error>> {
            let first = self.first.0.lock().unwrap_or_else(PoisonError::into_inner);
            let patience = Duration::from_secs(20);
            let (first, _) = self
                .first
                .1
                .wait_timeout_while(first, patience, |f| f.is_none())
                .unwrap_or_else(PoisonError::into_inner);
            first.ok_or_else(|| "no request came".into())
        }
    }

    /// The server: every request is answered after [`WORK`]. Prints its port.
    pub(super) fn serve() -> Result<(), Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        println!("{}", listener.local_addr()?.port());
        each_connection(&listener, |stream| {
            let mut reader = BufReader::new(stream.try_clone()?);
            let mut stream = stream;
            while read_request(&mut reader)?.is_some() {
                std::thread::sleep(WORK);
                stream.write_all(ANSWER)?;
            }
            Ok(())
        });
        Ok(())
    }

    fn each_connection(
        listener: &TcpListener,
        work: impl Fn(TcpStream) -> std::io::Result<()> + Send + Clone + 'static,
    ) {
        for stream in listener.incoming().flatten() {
            let work = work.clone();
            std::thread::spawn(move || {
                // A connection that breaks ends its thread, and nothing else.
                let _ = stream.set_nodelay(true).and_then(|()| work(stream));
            });
        }
    }

    /// The head of the next request; nothing at the end of the connection.
    fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
        let mut head = String::new();
        loop {
            let before = head.len();
            if reader.read_line(&mut head)? == 0 {
                return Ok(None);
            }
            if head[before..].trim().is_empty() {
                return Ok(Some(head));
            }
        }
    }

    /// Passes requests on to `to`, and notes when.
    fn relay(listener: &TcpListener, to: SocketAddr, log: &Arc<Log>) {
        let log = Arc::clone(log);
        each_connection(listener, move |stream| {
            let mut server = TcpStream::connect(to)?;
            server.set_nodelay(true)?;
            let mut reader = BufReader::new(stream.try_clone()?);
            let mut stream = stream;
            let mut answer = vec![0; ANSWER.len()];
            while let Some(head) = read_request(&mut reader)? {
                let sent = log.sent();
                server.write_all(head.as_bytes())?;
                server.read_exact(&mut answer)?;
                let ended = Instant::now();
                stream.write_all(&answer)?;
                let number = head
                    .split(' ')
                    .nth(1)
                    .and_then(|path| path.trim_start_matches('/').parse().ok());
                if let Some(number) = number {
                    let mut passed = log.passed.lock().unwrap_or_else(PoisonError::into_inner);
                    passed.push((number, sent, ended));
                }
            }
            Ok(())
        });
    }

    /// A child that ends with this.
    struct Server(Child);

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    pub(super) fn measure(dir: &Path) -> Result<(), Box<dyn Error>> {
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut server = Server(child);
        let out = server.0.stdout.take().ok_or("the server has no output")?;
        let mut port = String::new();
        BufReader::new(out).read_line(&mut port)?;
        let to = SocketAddr::from(([127, 0, 0, 1], port.trim().parse()?));

        let log = Arc::new(Log::default());
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let base = BaseUrl::parse(&format!("http://{}", listener.local_addr()?))?;
        let relay_log = Arc::clone(&log);
        std::thread::spawn(move || relay(&listener, to, &relay_log));

        let pid = Pid::from_child(&server.0);
        let pause_log = Arc::clone(&log);
        let pauser = std::thread::spawn(move || -> Result<(Instant, Instant), String> {
            let first = pause_log.wait_for_first().map_err(|e| e.to_string())?;
            let until = |at_s: f64| {
                let at = first + Duration::from_secs_f64(at_s);
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
            };
            until(PAUSE_AT_S);
            let stopped = Instant::now();
            kill_process(pid, Signal::STOP).map_err(|e| e.to_string())?;
            until(PAUSE_AT_S + PAUSE_S);
            kill_process(pid, Signal::CONT).map_err(|e| e.to_string())?;
            Ok((stopped, Instant::now()))
        });

        let outcome = load(base)?;
        let (stopped, went_on) = pauser.join().map_err(|_| "the pause failed")??;
        let mut passed =
            std::mem::take(&mut *log.passed.lock().unwrap_or_else(PoisonError::into_inner));
        passed.sort_unstable_by_key(|(number, ..)| *number);
        if let Some(why) = &outcome.invalid {
            return Err(format!("the run is invalid: {why}").into());
        }
        let pause_s = (went_on - stopped).as_secs_f64();
        tell(&outcome, pause_s);
        std::fs::write(
            dir.join("coordinated-omission-time.svg"),
            over_time(&passed)?,
        )?;
        std::fs::write(
            dir.join("coordinated-omission-percentiles.svg"),
            curves(&outcome, pause_s),
        )?;
        Ok(())
    }

    /// A constant rate, each request with its number in its path.
    #[tokio::main(flavor = "current_thread")]
    async fn load(base: BaseUrl) -> Result<Outcome, Box<dyn Error>> {
        let numbers: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
        let rows = Rows::from_csv(&format!("n\n{}\n", numbers.join("\n")))?;
        let mut plan = Plan::open(
            base,
            vec![RequestSpec::get("/${n}")],
            Rate::constant(RATE),
            Duration::from_secs_f64(RUN_S),
            CONNECTIONS,
        );
        plan.data = Some(Arc::new(rows));
        Ok(evenkeel_stress::run(&plan, &Cancel::new()).await?)
    }

    /// What the closed form says of the quantile `q`, in milliseconds: see the book's page.
    fn closed_form(q: f64, pause_s: f64) -> f64 {
        let work_s = WORK.as_secs_f64();
        let capacity = f64::from(CONNECTIONS) / work_s;
        let waited = pause_s - (1.0 - q) * RUN_S * (1.0 - RATE / capacity);
        waited.max(work_s) * 1000.0
    }

    fn tell(outcome: &Outcome, pause_s: f64) {
        println!(
            "{} requests, {} failed, pause {pause_s:.3} s; milliseconds:",
            outcome.requests,
            outcome.error_count()
        );
        println!("quantile  closed form  from intended start  from actual send");
        for q in [0.5, 0.9, 0.92, 0.95, 0.99, 0.999] {
            println!(
                "{q:>8}  {:>11.1}  {:>19.1}  {:>16.1}",
                closed_form(q, pause_s),
                outcome.latency.value_at_quantile(q) as f64 / 1000.0,
                outcome.service_time.value_at_quantile(q) as f64 / 1000.0
            );
        }
    }

    /// Every request twice: where it was due, with the latency from then; where it was sent, with the time from then.
    fn over_time(passed: &[Passed]) -> Result<String, Box<dyn Error>> {
        let due = |number: usize| Duration::from_secs_f64(number as f64 / RATE);
        // None is sent before it is due, and the promptest just then.
        let zero = passed
            .iter()
            .filter_map(|(number, sent, _)| sent.checked_sub(due(*number)))
            .min()
            .ok_or("nothing passed")?;
        let (mut felt, mut served) = (Vec::new(), Vec::new());
        for (number, sent, ended) in passed {
            let due = due(*number);
            let end = ended.saturating_duration_since(zero);
            felt.push((due.as_secs_f64(), end.saturating_sub(due).as_secs_f64()));
            let sent_s = sent.saturating_duration_since(zero).as_secs_f64();
            served.push((sent_s, ended.saturating_duration_since(*sent).as_secs_f64()));
        }
        let slow = |all: &[(f64, f64)]| all.iter().filter(|(_, s)| *s > 0.1).count();
        println!(
            "over 100 ms: {} of {} by the intended start, {} by the actual send",
            slow(&felt),
            felt.len(),
            slow(&served)
        );
        let plot = Plot::new(
            "Latency, seconds",
            "time in the run",
            Axis::seconds(RUN_S),
            Axis::from_zero(PAUSE_S),
        );
        Ok(plot
            .with(
                Shape::Dots(felt),
                Colour::Blue,
                "at its intended start, from then",
            )
            .with(
                Shape::Dots(served),
                Colour::Orange,
                "at its actual send, from then",
            )
            .file())
    }

    fn curves(outcome: &Outcome, pause_s: f64) -> String {
        let count = outcome.latency.len();
        // At even distances by nines, as the axis has it.
        let last = (count as f64).log10();
        let quantiles: Vec<f64> = (0..=400)
            .map(|i| 1.0 - 10_f64.powf(-last * f64::from(i) / 400.0))
            .collect();
        let curve =
            |of: &dyn Fn(f64) -> f64| quantiles.iter().map(|q| (*q, of(*q))).collect::<Vec<_>>();
        let felt = curve(&|q| outcome.latency.value_at_quantile(q) as f64 / 1_000_000.0);
        let served = curve(&|q| outcome.service_time.value_at_quantile(q) as f64 / 1_000_000.0);
        let formula = curve(&|q| closed_form(q, pause_s) / 1000.0);
        Plot::new(
            "Latency by percentile, seconds",
            "share of requests that took no longer",
            Axis::nines(count),
            Axis::from_zero(PAUSE_S),
        )
        .with(Shape::Line(served), Colour::Orange, "from the actual send")
        .with(Shape::Line(felt), Colour::Blue, "from the intended start")
        .with(Shape::Dashed(formula), Colour::Red, "closed form")
        .file()
    }
}
