//! A watch: a stream of JSON lines from one node, taken up at another one when it breaks.
//!
//! Owns the stream and where it stands; must not know what the keys mean. Flow: a task reads lines and sends their events over a
//! bounded channel; whoever has the [`EtcdWatch`] takes them from there, and its drop ends the task.

use super::http::Http;
use super::plain_key;
use super::wire::{Streamed, WatchAnswer, WatchCreate, WatchKind, WatchRequest};
use crate::store::{Event, EventKind, Revision, StoreError, Watch};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Longest line: etcd sends the events of one commit in one line, with their values.
const MAX_LINE: usize = 4 << 20;

/// Most messages that wait for the reader, who is slower then than the network.
const WAITING: usize = 64;

/// How long a node may take to begin a stream.
const BEGIN_WAIT: Duration = Duration::from_secs(5);

/// Pause before a stream is begun anew, so that a cluster that is down is not asked all the time.
const AGAIN_PAUSE: Duration = Duration::from_millis(200);

/// What is watched.
pub(super) struct Range {
    pub(super) key: String,
    pub(super) range_end: Option<String>,
    pub(super) prefix: String,
}

/// The reader's end.
pub(super) struct EtcdWatch {
    events: mpsc::Receiver<Result<Vec<Event>, StoreError>>,
    runtime: Handle,
    prefix: String,
}

type Sender = mpsc::Sender<Result<Vec<Event>, StoreError>>;

/// Begins to watch.
pub(super) fn start(
    runtime: &Runtime,
    http: Arc<Http>,
    range: Range,
    after: Revision,
) -> EtcdWatch {
    let (sender, events) = mpsc::channel(WAITING);
    let prefix = range.prefix.clone();
    runtime.spawn(follow(http, range, after, sender));
    EtcdWatch { events, runtime: runtime.handle().clone(), prefix }
}

impl Watch for EtcdWatch {
    fn next(&mut self, wait: Duration) -> Result<Vec<Event>, StoreError> {
        let events = &mut self.events;
        let next = async { tokio::time::timeout(wait, events.recv()).await };
        match self.runtime.block_on(next) {
            Ok(Some(events)) => events,
            Ok(None) => Err(StoreError::Unavailable {
                reason: format!("the watch of {} has ended", self.prefix),
            }),
            Err(_) => Ok(Vec::new()),
        }
    }
}

/// Streams, one after the other, until nobody reads any more.
async fn follow(http: Arc<Http>, range: Range, mut after: Revision, sender: Sender) {
    loop {
        let request = WatchRequest {
            create_request: WatchCreate {
                key: range.key.clone(),
                range_end: range.range_end.clone(),
                start_revision: (after.0 + 1).to_string(),
            },
        };
        let body = serde_json::to_vec(&request).unwrap_or_default();
        let stream = http.stream("/v3/watch", Bytes::from(body), Instant::now() + BEGIN_WAIT);
        let ended = tokio::select! {
            stream = stream => match stream {
                Ok(answer) => read(answer.into_body(), &range.prefix, &mut after, &sender).await,
                Err(lost) => Ended::Broken(lost.reason()),
            },
            () = sender.closed() => Ended::Unread,
        };
        match ended {
            Ended::Unread => return,
            Ended::Failed(e) => {
                // Nobody reads any more, or they do and are told.
                let _told = sender.send(Err(e)).await;
                return;
            }
            Ended::Broken(reason) => {
                tracing::debug!("a watch is begun anew: {reason}");
                http.advance();
            }
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN_PAUSE) => {}
            () = sender.closed() => return,
        }
    }
}

/// Why a stream is over.
enum Ended {
    /// Nobody waits for its events.
    Unread,
    /// The connection or the node; another one goes on.
    Broken(String),
    /// Going on makes no sense.
    Failed(StoreError),
}

async fn read(mut body: Incoming, prefix: &str, after: &mut Revision, sender: &Sender) -> Ended {
    let mut line = Vec::new();
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = sender.closed() => return Ended::Unread,
        };
        let data = match frame {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(e)) => return Ended::Broken(e.to_string()),
            None => return Ended::Broken("the node ended the stream".into()),
        };
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if line.len() > MAX_LINE {
                return Ended::Broken(format!("a line of more than {MAX_LINE} bytes"));
            }
            if line.last() == Some(&b'\n') {
                let events = match parse(&line, prefix, *after) {
                    Ok(events) => events,
                    Err(ended) => return ended,
                };
                line.clear();
                *after = events.last().map_or(*after, |event| (*after).max(event.revision));
                if !events.is_empty() && sender.send(Ok(events)).await.is_err() {
                    return Ended::Unread;
                }
            }
        }
    }
}

fn parse(line: &[u8], prefix: &str, after: Revision) -> Result<Vec<Event>, Ended> {
    let line: Streamed<WatchAnswer> =
        serde_json::from_slice(line).map_err(|e| Ended::Broken(e.to_string()))?;
    let Some(answer) = line.result else {
        let reason = line.error.map_or_else(|| "no reason".into(), |error| error.to_string());
        return Err(Ended::Broken(reason));
    };
    if answer.compact_revision > 0 {
        return Err(Ended::Failed(StoreError::Compacted { after }));
    }
    if answer.canceled {
        return Err(Ended::Broken(format!("cancelled: {}", answer.cancel_reason)));
    }
    let events = answer.events.into_iter().map(|event| {
        let kind = match event.kind {
            WatchKind::Put => EventKind::Put,
            WatchKind::Delete => EventKind::Deleted,
        };
        let key = plain_key(prefix, &event.kv.key)?;
        Ok(Event { key, revision: Revision(event.kv.mod_revision), kind })
    });
    events.collect::<Result<Vec<_>, _>>().map_err(Ended::Failed)
}
