//! A cable between two programs: TCP that passes, stands still, is deaf, slow, or cut.
//!
//! What a cable that stands still has taken in is not lost: it arrives when the cable is whole
//! again, as what TCP sends again does, even if who sent it has gone meanwhile.
#![allow(dead_code, unreachable_pub, clippy::expect_used, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a cable does to what is sent over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Whole,
    /// Nothing arrives, either way, and nobody is told.
    Dead,
    /// What is asked arrives; answers do not.
    Deaf,
    /// Everything arrives so much later.
    Slow(Duration),
    /// Connections are reset, and new ones too.
    Cut,
}

/// A cable to one server.
pub struct Cable {
    pub addr: SocketAddr,
    fault: watch::Sender<Fault>,
    /// Connections that were accepted so far.
    dialled: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Cable {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (fault, seen) = watch::channel(Fault::Whole);
        let dialled = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&dialled);
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                count.fetch_add(1, Ordering::AcqRel);
                tokio::spawn(connect(client, port, seen.clone()));
            }
        });
        Self { addr, fault, dialled, accepting }
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// How often somebody connected.
    pub fn dialled(&self) -> usize {
        self.dialled.load(Ordering::Acquire)
    }

    /// The engine behind it, as `[store] url`.
    pub fn url(&self) -> String {
        format!("redis://{}/0", self.addr)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connect(client: TcpStream, port: u16, mut fault: watch::Receiver<Fault>) {
    reset_when_dropped(&client);
    // A dead cable answers nobody; a connection is made when it is whole again.
    let whole = fault.wait_for(|fault| !matches!(fault, Fault::Dead)).await.map(|fault| *fault);
    if !matches!(whole, Ok(fault) if fault != Fault::Cut) {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    reset_when_dropped(&server);
    let mut cut = fault.clone();
    let (asks, hears) = client.into_split();
    let (answers, takes) = server.into_split();
    let there = carry(asks, takes, fault.clone(), |fault| fault == Fault::Dead);
    let back = carry(answers, hears, fault, |fault| matches!(fault, Fault::Dead | Fault::Deaf));
    tokio::select! {
        _ = cut.wait_for(|fault| *fault == Fault::Cut) => {}
        _ = async { tokio::join!(there, back) } => {}
    }
}

/// An end that is dropped in the middle of something is reset, not closed.
fn reset_when_dropped(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Carries one direction, until its end has arrived.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut fault: watch::Receiver<Fault>,
    stands: impl Fn(Fault) -> bool,
) {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut piece).await.unwrap_or(0);
        let Ok(present) = fault.wait_for(|fault| !stands(*fault)).await.map(|fault| *fault) else {
            return;
        };
        if let Fault::Slow(by) = present {
            tokio::time::sleep(by).await;
        }
        if read == 0 {
            let _ = to.shutdown().await;
            return;
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}
