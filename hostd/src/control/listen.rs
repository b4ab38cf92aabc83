//! The control socket: its permissions, its callers' identity, and a limit of connections.
//!
//! Owns binding and accepting, and the end of connections whose client reads no answer; must not know routes.

use crate::config::{Config, Group};
use crate::fault::Fault;
use crate::files;
use hostd_api::error::ErrorCode;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Pause after a failed accept: the usual reason is a lack of descriptors, which takes a moment to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Debug, Clone)]
pub enum Peer {
    /// A process of this host, as the kernel says.
    Local {
        /// User id.
        uid: u32,
        /// Process id; 0 when it is in another namespace.
        pid: i32,
    },
    /// A control plane, as its certificate says.
    ControlPlane(Arc<str>),
}

/// As the audit line names it.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, pid } => write!(f, "uid {uid} pid {pid}"),
            Self::ControlPlane(name) => f.write_str(name),
        }
    }
}

/// The listening control socket with a limit of connections: more wait in the kernel's queue.
#[derive(Debug)]
pub struct Gate {
    socket: UnixListener,
    permits: Arc<Semaphore>,
}

/// A connection that gives its place back when it ends, which it does at the latest when its client has taken nothing
/// of an answer for a while.
#[derive(Debug)]
pub(super) struct Guarded {
    stream: UnixStream,
    _permit: Option<OwnedSemaphorePermit>,
    write_wait: Duration,
    /// The end of the wait, while nothing can be written.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    fn poll_stalled<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let wait = self.write_wait;
        let end = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
        end.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Binds the control socket. A stale one is replaced; one that answers belongs to another hostd.
///
/// # Errors
/// `in-use` when another hostd listens there; [`Fault::Io`].
pub fn bind(config: &Config) -> Result<Gate, Fault> {
    let path = config.control_socket();
    crate::service::check_socket_path(&path)?;
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        return Err(Fault::refused(
            ErrorCode::InUse,
            format!("another hostd listens on {}", path.display()),
            "stop it, or set another run_dir",
        ));
    }
    files::remove(&path)?;
    let socket = UnixListener::bind(&path).map_err(Fault::io("listen on", &path))?;
    let group = config.socket.group.as_ref().and_then(Group::resolve);
    files::permit(&path, config.socket.mode.0, group)?;
    let permits = Arc::new(Semaphore::new(config.limits.control_connections));
    Ok(Gate { socket, permits })
}

impl Gate {
    /// The next connection, once there is a place for it. It fails when nothing can be written to it for `write_wait`.
    pub(super) async fn accept(&self, write_wait: Duration) -> (Guarded, Peer) {
        // The semaphore is never closed, so there is always a permit in the end.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        loop {
            match self.socket.accept().await.and_then(|(stream, _)| peer_of(stream)) {
                Ok((stream, peer)) => {
                    return (Guarded { stream, _permit: permit, write_wait, stalled: None }, peer);
                }
                Err(e) => {
                    tracing::warn!("a connection to the control socket failed: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn peer_of(stream: UnixStream) -> io::Result<(UnixStream, Peer)> {
    let cred = stream.peer_cred()?;
    let peer = Peer::Local { uid: cred.uid(), pid: cred.pid().unwrap_or(0) };
    Ok((stream, peer))
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Pending => self.poll_stalled(cx),
            done => {
                self.stalled = None;
                done
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
