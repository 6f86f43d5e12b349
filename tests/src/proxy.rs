//! A TCP proxy on loopback between a stage and a server. It cuts connections, or holds what they carry back.

use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Bytes on their way in one direction.
const BUFFER_BYTES: usize = 16 << 10;
const CONNECT_BOUND: Duration = Duration::from_secs(2);

/// Forwards to one port. Dropping it ends its connections.
pub struct Proxy {
    port: u16,
    cuts: watch::Sender<u64>,
    held: watch::Sender<bool>,
    accept: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(target: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("start a proxy")?;
        let port = listener.local_addr()?.port();
        let (cuts, held) = (watch::Sender::new(0), watch::Sender::new(false));
        let (cut, hold) = (cuts.clone(), held.clone());
        let accept = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    biased;
                    // Only forgets connections that ended.
                    Some(_) = connections.join_next() => {}
                    accepted = listener.accept() => {
                        let Ok((from, _)) = accepted else { return };
                        connections.spawn(forward(from, target, cut.subscribe(), hold.subscribe()));
                    }
                }
            }
        });
        Ok(Self { port, cuts, held, accept })
    }

    pub fn port(&self) -> u16 {
        self.port
    }
    /// Ends every connection there is.
    pub fn cut(&self) {
        self.cuts.send_modify(|n| *n += 1);
    }
    /// While true, nothing passes in either direction, and nobody is told.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn forward(from: TcpStream, target: u16, mut cut: watch::Receiver<u64>, held: watch::Receiver<bool>) {
    cut.borrow_and_update();
    let connected = tokio::time::timeout(CONNECT_BOUND, TcpStream::connect(("127.0.0.1", target))).await;
    let Ok(Ok(to)) = connected else { return };
    // Small writes must not wait for each other: that would measure Nagle and not the pipeline.
    if from.set_nodelay(true).is_err() || to.set_nodelay(true).is_err() {
        return;
    }
    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
    tokio::select! {
        biased;
        _ = cut.changed() => {}
        // Either side's end ends both: what is lost here is what a broken connection loses.
        () = pump(from_read, to_write, held.clone()) => {}
        () = pump(to_read, from_write, held) => {}
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut held: watch::Receiver<bool>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let n = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        if held.wait_for(|held| !held).await.is_err() || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
