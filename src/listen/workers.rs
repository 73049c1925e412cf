//! The threads that serve the public: each has a runtime of its own, and a connection stays with
//! the thread that got it.
//!
//! In a runtime whose threads steal tasks from each other, a request wakes the other threads time
//! and again: for its own task, for the watch over each pooled upstream connection, and because
//! one thread alone waits for the kernel's events. Here nothing of a request leaves its thread,
//! pooled connections included, as each thread has an application of its own.
//!
//! The first thread accepts, and gives each connection to the one of two threads that has less to
//! do: connections are long, and nothing moves them later.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::TcpStream;
use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::{mpsc, watch};

use super::door::Door;
use super::{Access, Application, Busy, Pulse, Tally, cannot_accept, transport};

/// Connections that wait for a thread to take them up. The kernel keeps what comes on top.
const WAITING: usize = 256;

/// A socket, and the application behind it for each thread.
pub struct Entrance<A> {
    pub listener: std::net::TcpListener,
    pub applications: Vec<Arc<A>>,
}

/// The running threads.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

/// A connection on its way to its thread.
struct Accepted<A> {
    application: Arc<A>,
    stream: std::net::TcpStream,
    peer: SocketAddr,
    arrival: Busy,
}

/// The way to a thread.
struct Post<A> {
    runtime: Handle,
    sender: mpsc::Sender<Accepted<A>>,
}

impl<A> Post<A> {
    /// Tasks that it has, and connections that are on their way to it.
    fn load(&self) -> usize {
        let waiting = self.sender.max_capacity() - self.sender.capacity();
        self.runtime.metrics().num_alive_tasks() + waiting
    }
}

impl Workers {
    /// Starts `threads` threads that serve `entrances`, as `access` says. `arrivals` counts the sockets
    /// where something is accepted, and the connections that were and have asked nothing yet.
    ///
    /// # Errors
    /// A thread, a runtime or a socket cannot be set up.
    pub fn start<A: Application>(
        threads: usize,
        entrances: Vec<Entrance<A>>,
        access: &watch::Receiver<Access>,
        arrivals: &Tally,
        pulse: &Arc<Pulse>,
    ) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut posts = Vec::with_capacity(threads);
        let mut crew = Vec::with_capacity(threads);
        for _ in 0..threads {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let (sender, receiver) = mpsc::channel(WAITING);
            posts.push(Post { runtime: runtime.handle().clone(), sender });
            crew.push((runtime, receiver));
        }
        let posts: Arc<[Post<A>]> = posts.into();
        let mut entrances = Some(entrances);
        let mut workers = Self { threads: Vec::with_capacity(threads), stop };
        for (number, (runtime, receiver)) in crew.into_iter().enumerate() {
            let entries = entrances.take().into_iter().flatten();
            let entries = entries.map(|entrance| {
                let _entered = runtime.enter();
                Ok(Entry {
                    door: Door::new(entrance.listener, access.clone(), arrivals.clone())?,
                    applications: entrance.applications,
                    posts: Arc::clone(&posts),
                    turn: 0,
                    stopped: stopped.clone(),
                })
            });
            let entries = entries.collect::<io::Result<Vec<_>>>()?;
            let work = work(receiver, entries, stopped.clone());
            let (pulse, stopped) = (Arc::clone(pulse), stopped.clone());
            let run = move || run(&runtime, work, &pulse, number, stopped);
            let name = format!("worker-{number}");
            workers.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
        }
        Ok(workers)
    }
}

impl Drop for Workers {
    /// Ends the threads and whatever they still serve.
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker thread had panicked");
            }
        }
    }
}

/// A thread, until it is stopped. Its tasks end with its runtime.
fn run(
    runtime: &Runtime,
    work: impl Future<Output = ()>,
    pulse: &Pulse,
    number: usize,
    mut stopped: watch::Receiver<bool>,
) {
    runtime.block_on(async {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = pulse.beat(number) => {}
            () = work => {}
        }
    });
}

/// Takes up connections, and accepts at `entries`, for ever.
async fn work<A: Application>(
    mut receiver: mpsc::Receiver<Accepted<A>>,
    entries: Vec<Entry<A>>,
    stopped: watch::Receiver<bool>,
) {
    for entry in entries {
        tokio::spawn(entry.keep());
    }
    while let Some(accepted) = receiver.recv().await {
        accepted.serve(&stopped);
    }
    // No door is open any more. Whoever is in stays.
    std::future::pending().await
}

impl<A: Application> Accepted<A> {
    /// Serves it in the present thread.
    fn serve(self, stopped: &watch::Receiver<bool>) {
        match TcpStream::from_std(self.stream) {
            Ok(stream) => begin(self.application, stream, self.peer, self.arrival, stopped),
            Err(error) => tracing::error!(%error, "a connection cannot be served"),
        }
    }
}

/// Serves a connection in the present thread.
fn begin<A: Application>(
    application: Arc<A>,
    stream: TcpStream,
    peer: SocketAddr,
    arrival: Busy,
    stopped: &watch::Receiver<bool>,
) {
    if let Some(stream) = transport(stream, peer) {
        tokio::spawn(application.serve(stream, arrival, stopped.clone()));
    }
}

/// One socket, in the first thread.
struct Entry<A> {
    door: Door,
    applications: Vec<Arc<A>>,
    posts: Arc<[Post<A>]>,
    turn: usize,
    stopped: watch::Receiver<bool>,
}

impl<A: Application> Entry<A> {
    /// Accepts until the door is closed.
    async fn keep(mut self) {
        while let Some(accepted) = self.door.next().await {
            let assigned = match accepted {
                Ok((stream, peer, arrival)) => self.assign(stream, peer, arrival).await,
                Err(error) => Err(error),
            };
            if let Err(error) = assigned {
                cannot_accept(&error).await;
            }
        }
    }

    /// Gives a connection to a thread.
    async fn assign(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        arrival: Busy,
    ) -> io::Result<()> {
        let thread = self.pick();
        let post = self.posts.get(thread).zip(self.applications.get(thread));
        let Some((post, application)) = post else { return Ok(()) };
        let application = Arc::clone(application);
        if thread == 0 {
            begin(application, stream, peer, arrival, &self.stopped);
            return Ok(());
        }
        let accepted = Accepted { application, stream: stream.into_std()?, peer, arrival };
        if let Err(unsent) = post.sender.send(accepted).await {
            // The thread is gone, which the watchdog will notice; the client need not.
            unsent.0.serve(&self.stopped);
        }
        Ok(())
    }

    /// The one of two threads that has less to do; each pair in its turn.
    fn pick(&mut self) -> usize {
        let threads = self.posts.len();
        let one = self.turn % threads;
        self.turn = one + 1;
        let other = self.turn % threads;
        let load = |thread: usize| self.posts.get(thread).map_or(usize::MAX, Post::load);
        if load(other) < load(one) { other } else { one }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpStream as Client;
    use std::sync::mpsc::{Sender, channel};
    use std::time::{Duration, Instant};

    use parking_lot::Mutex;
    use pingora::protocols::Stream;

    use super::*;

    /// Keeps every connection, and blocks its thread for as long as it is told to.
    struct Keeps {
        kept: Sender<(Stream, Busy)>,
        blocked: Arc<Mutex<()>>,
    }

    impl Application for Keeps {
        async fn serve(
            self: Arc<Self>,
            stream: Stream,
            arrival: Busy,
            _stopped: watch::Receiver<bool>,
        ) {
            drop(self.blocked.lock());
            let _ = self.kept.send((stream, arrival));
            // The load of its thread.
            std::future::pending().await
        }
    }

    fn wait_until(mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "it takes too long");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The door is shut for a while when a thread takes nothing up: what was accepted is served, what
    /// was not stays in the kernel's queue, and is served when the door is closed for good.
    #[test]
    fn who_was_let_in_stays_in_when_the_door_is_closed() {
        let listener = super::super::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (kept, keeping) = channel();
        let keeps = |blocked: &Arc<Mutex<()>>| {
            Arc::new(Keeps { kept: kept.clone(), blocked: Arc::clone(blocked) })
        };
        let (free, blocked) = (Arc::default(), Arc::default());
        let applications = vec![keeps(&free), keeps(&blocked)];
        let (door, access) = watch::channel(Access::Open);
        let (arrivals, pulse) = (Tally::default(), Arc::new(Pulse::new(2)));
        let block = blocked.lock();
        let entrances = vec![Entrance { listener, applications }];
        let workers = Workers::start(2, entrances, &access, &arrivals, &pulse).unwrap();

        let mut clients: Vec<Client> = Vec::new();
        let mut served = Vec::new();
        // Each gets half of them, until the way to the blocked one is full.
        let mut unchanged = 0;
        while unchanged < 20 {
            clients.push(Client::connect(address).unwrap());
            std::thread::sleep(Duration::from_millis(1));
            let before = served.len();
            served.extend(keeping.try_iter());
            unchanged = if served.len() == before { unchanged + 1 } else { 0 };
            assert!(clients.len() < 4 * WAITING, "the door never waits");
        }
        door.send_replace(Access::Paused);
        std::thread::sleep(Duration::from_millis(50));
        drop(block);
        wait_until(|| {
            served.extend(keeping.try_iter());
            arrivals.count() == served.len()
        });
        for client in &mut clients {
            client.set_nonblocking(true).unwrap();
            let error = client.read(&mut [0]).expect_err("it was cut off");
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
        assert!(served.len() < clients.len(), "somebody came too late");
        door.send_replace(Access::Closed);
        wait_until(|| {
            served.extend(keeping.try_iter());
            served.len() == clients.len()
        });
        wait_until(|| Client::connect(address).is_err());
        drop(workers);
    }
}
