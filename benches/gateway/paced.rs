//! Latency at a fixed rate, open loop: each operation has a time at which it is to start, whatever
//! became of those before it, and its latency counts from then on. So a proxy that stands still
//! delays what should have started meanwhile, and that shows (no coordinated omission).
//!
//! A thread for each connection: timers of an asynchronous runtime are a millisecond apart.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::frames::{Frame, Frames, TEXT, client_text};
use crate::load::{Latency, Sample, runtime};
use crate::options::Options;
use crate::peers::Peer;
use crate::requests::{AnswerReader, Request};
use crate::socket::{Socket, auth};
use crate::workload::Workload;
use crate::workloads::{SMALL, cursor};

/// How long an operation may take until its client gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Operations within this time from the start are not counted.
const WARM_UP: Duration = Duration::from_millis(200);

/// Clients that fail to connect before the measurement is given up.
const MOST_ERRORS: u64 = 20;

/// One operation; returns when it was done.
type Operation = Box<dyn FnMut() -> Result<Instant> + Send>;

/// Measures one workload through one peer.
pub(crate) fn run(workload: Workload, peer: &Peer, options: &Options) -> Result<Sample> {
    let interval = interval(workload);
    let clients = workload.clients();
    let mut operations = Vec::with_capacity(clients);
    let mut errors = 0;
    for number in 0..clients as u64 {
        // As in every workload, a connection that is lost is counted and opened again.
        let operation = loop {
            match prepare(workload, peer.address, number) {
                Ok(operation) => break operation,
                Err(error) if errors >= MOST_ERRORS => return Err(error),
                Err(error) => {
                    errors += 1;
                    eprintln!("  a client failed: {error}");
                }
            }
        };
        operations.push(operation);
    }
    let window = options.window() * 2;
    let before = peer.cpu_time();
    let start = Instant::now() + Duration::from_millis(20);
    let threads: Vec<_> = (0_u32..)
        .zip(operations)
        .map(|(number, operation)| {
            // Spread over the interval.
            let first = start + interval * number / u32::try_from(clients).unwrap_or(1);
            thread::spawn(move || pace(operation, first, interval, window + WARM_UP))
        })
        .collect();
    let mut all = Vec::new();
    for thread in threads {
        match thread.join().map_err(|_| "a client panicked")? {
            Ok(latencies) => all.extend(latencies),
            Err(error) => {
                errors += 1;
                eprintln!("  a client failed: {error}");
            }
        }
    }
    let cpu = peer.cpu_time().zip(before).map(|(after, before)| after.saturating_sub(before));
    let operations = (window + WARM_UP).as_secs_f64() / interval.as_secs_f64() * clients as f64;
    Ok(Sample {
        per_second: all.len() as f64 / window.as_secs_f64(),
        cpu_microseconds: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / operations.max(1.0)),
        errors,
        stuck: 0,
        latency: Latency::of(all),
    })
}

/// Connects one client.
fn prepare(workload: Workload, address: SocketAddr, number: u64) -> Result<Operation> {
    match workload {
        Workload::HttpPaced => get(address),
        Workload::WsPaced => echo(address, number),
        Workload::Polling => poll(address, number),
        _ => Err("no workload of a latency".into()),
    }
}

/// How often each client begins.
fn interval(workload: Workload) -> Duration {
    Duration::from_millis(if workload == Workload::Polling { 20 } else { 10 })
}

/// Operates at its times until the time is over; the latencies after the warm-up.
fn pace(
    mut operation: Operation,
    first: Instant,
    interval: Duration,
    length: Duration,
) -> Result<Vec<Duration>> {
    // Or the kernel wakes this thread up to 50 µs late.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut latencies = Vec::new();
    let mut due = first;
    while due < first + length {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let done = operation()?;
        if due >= first + WARM_UP {
            latencies.push(done.saturating_duration_since(due));
        }
        due += interval;
    }
    Ok(latencies)
}

fn get(address: SocketAddr) -> Result<Operation> {
    let request = Request::bytes(1024, &address.to_string());
    let mut wire = Wire::connect(address)?;
    Ok(Box::new(move || {
        wire.send(request.as_bytes())?;
        wire.receive_answer()?;
        Ok(Instant::now())
    }))
}

fn echo(address: SocketAddr, number: u64) -> Result<Operation> {
    let socket = runtime(1)?.block_on(async {
        let socket = Socket::open(address, number).await?;
        socket.into_blocking()
    })?;
    let mut wire = Wire::new(socket.0, socket.1)?;
    let mut message = Vec::new();
    client_text(&mut message, &cursor(SMALL));
    Ok(Box::new(move || {
        wire.send(&message)?;
        let frame = wire.receive_frame()?;
        if frame.opcode != TEXT || frame.payload.len() != SMALL {
            return Err(format!("unexpected frame {:#x}", frame.opcode).into());
        }
        Ok(Instant::now())
    }))
}

/// An admitted session of the polling transport, its next `GET` always parked.
fn poll(address: SocketAddr, number: u64) -> Result<Operation> {
    let host = address.to_string();
    let key = format!("poll-{number:08}");
    let target = format!("/doc/{key}/c/?shardkey={key}&EIO=4&transport=polling");
    let (mut parked, mut posting) = (Wire::connect(address)?, Wire::connect(address)?);
    parked.send(Request::polling_get(&host, &target).as_bytes())?;
    let open = String::from_utf8(parked.receive_answer()?)?;
    let sid = open.split('"').nth(3).ok_or("a handshake without a session id")?;
    let target = format!("{target}&sid={sid}");
    let request = Request::polling_get(&host, &target);
    for (packet, awaited) in [
        ("40{}".to_owned(), r#""type":"license""#),
        (auth(&key, number), r#""type":"auth","result":1"#),
    ] {
        posting.send(Request::polling_post(&host, &target, packet.as_bytes()).as_bytes())?;
        posting.receive_answer()?;
        let mut answer = Vec::new();
        while memchr::memmem::find(&answer, awaited.as_bytes()).is_none() {
            parked.send(request.as_bytes())?;
            answer = parked.receive_answer()?;
        }
    }
    parked.send(request.as_bytes())?;
    let message = Request::polling_post(&host, &target, cursor(SMALL).as_bytes());
    Ok(Box::new(move || {
        posting.send(message.as_bytes())?;
        let echoed = parked.receive_answer()?;
        let taken = posting.receive_answer()?;
        let done = Instant::now();
        if echoed.len() != SMALL || taken != b"ok" {
            return Err(format!("unexpected packets of {} bytes", echoed.len()).into());
        }
        parked.send(request.as_bytes())?;
        Ok(done)
    }))
}

/// A connection that blocks.
struct Wire {
    stream: TcpStream,
    input: Frames,
}

impl Wire {
    fn connect(address: SocketAddr) -> Result<Self> {
        Self::new(TcpStream::connect(address)?, Frames::new())
    }

    fn new(stream: TcpStream, input: Frames) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, input })
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    fn fill(&mut self) -> Result<()> {
        match self.input.fill_from(&mut self.stream)? {
            0 => Err("the connection ended".into()),
            _ => Ok(()),
        }
    }

    fn receive_answer(&mut self) -> Result<Vec<u8>> {
        let mut answer = AnswerReader::keeping();
        while answer.read(&mut self.input)?.is_none() {
            self.fill()?;
        }
        Ok(answer.into_body())
    }

    fn receive_frame(&mut self) -> Result<Frame> {
        loop {
            if let Some(frame) = self.input.take() {
                return Ok(frame);
            }
            self.fill()?;
        }
    }
}
