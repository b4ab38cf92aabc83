//! The store in an etcd cluster, over its JSON gateway.
//!
//! Owns what a call of the trait is in etcd's words, and what etcd's errors are in ours. Must not know what is kept. Flow:
//! [`EtcdStore`] builds a request of `wire`, sends it by `http` on a runtime of its own, and waits for it.

mod http;
mod watch;
mod wire;

use super::{
    Change, Entry, Lease, MAX_PAGE, Page, Revision, Store, StoreError, Txn, Watch, end_of,
};
use http::{Answer, Http, Lost};
use hyper::body::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use wire::{
    CompareRequest, ErrorAnswer, GrantRequest, LeaseAnswer, LeaseRequest, Operation, PutRequest,
    RangeAnswer, RangeRequest, Streamed, TxnAnswer, TxnRequest, code, encode,
};

/// How long one call may take: etcd itself gives a request up after 7 s when it has no majority.
const CALL_WAIT: Duration = Duration::from_secs(10);

/// How long after a commit without an answer the store is asked what became of it.
const SETTLE_WAIT: Duration = Duration::from_secs(10);

/// Pause before another node is asked what one could not answer.
const AGAIN_PAUSE: Duration = Duration::from_millis(100);

/// Threads that move bytes; the waiting is done by the callers.
const IO_THREADS: usize = 1;

/// Where the cluster is.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// `http://HOST:PORT` or `https://HOST:PORT` of each node.
    pub endpoints: Vec<String>,
    /// Put before every key, so that several clusters of hosts share one etcd; for example `/coffer/berlin/`.
    pub prefix: String,
    /// For `https`.
    pub tls: Option<EtcdTls>,
}

/// PEM files for TLS to etcd.
#[derive(Debug, Clone)]
pub struct EtcdTls {
    /// Authorities that sign the certificates of the nodes.
    pub ca: PathBuf,
    /// Our certificate and its key, where etcd asks for one (`--client-cert-auth`).
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The store in etcd.
pub struct EtcdStore {
    http: Arc<Http>,
    prefix: String,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

/// What a call does to the store, which decides what its loss means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It may be repeated.
    Repeatable,
    /// A repetition could do it twice.
    Once,
}

impl EtcdStore {
    /// Reads the TLS files; connects with the first call.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for settings that cannot work.
    pub fn open(settings: &EtcdSettings) -> Result<Self, StoreError> {
        let http = Arc::new(Http::new(settings)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(IO_THREADS)
            .thread_name("etcd")
            .enable_all()
            .build()
            .map_err(|e| StoreError::Unavailable { reason: format!("no runtime: {e}") })?;
        Ok(Self { http, prefix: settings.prefix.clone(), runtime: Some(runtime) })
    }

    fn runtime(&self) -> Result<&Runtime, StoreError> {
        let gone = || StoreError::Unavailable { reason: "the store is being closed".into() };
        self.runtime.as_ref().ok_or_else(gone)
    }

    /// Key, and end of the range, of everything below a prefix.
    fn range(&self, prefix: &str) -> (String, Option<String>) {
        let prefix = format!("{}{prefix}", self.prefix);
        // All keys, in etcd's words: from the key NUL to the end NUL.
        let nul = || encode(b"\0");
        let key = if prefix.is_empty() { nul() } else { encode(prefix.as_bytes()) };
        (key, Some(end_of(&prefix).map_or_else(nul, |end| encode(end.as_bytes()))))
    }

    fn key(&self, key: &str) -> String {
        encode(format!("{}{key}", self.prefix).as_bytes())
    }

    fn entry(&self, found: wire::KeyValue) -> Result<Entry, StoreError> {
        let key = plain_key(&self.prefix, &found.key)?;
        Ok(Entry { key, value: found.value, revision: Revision(found.mod_revision) })
    }

    /// One request. The error of a call of kind [`Kind::Once`] that may have arrived is [`StoreError::Uncertain`].
    fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        kind: Kind,
    ) -> Result<T, StoreError> {
        let body = serde_json::to_vec(body).map_err(|e| StoreError::Limit(e.to_string()))?;
        let body = Bytes::from(body);
        let end = Instant::now() + CALL_WAIT;
        let is_repeatable = kind == Kind::Repeatable;
        self.runtime()?.block_on(async {
            loop {
                let answer = self.http.post(path, &body, is_repeatable, end).await;
                let answer = answer.map_err(|lost| lost_fault(lost, kind))?;
                match decode(&answer, kind) {
                    // Another node may have a majority where this one has none.
                    Err(StoreError::Unavailable { .. })
                        if is_repeatable && Instant::now() + AGAIN_PAUSE < end =>
                    {
                        self.http.advance();
                        tokio::time::sleep(AGAIN_PAUSE).await;
                    }
                    outcome => return outcome,
                }
            }
        })
    }

    fn try_commit(&self, txn: &Txn) -> Result<Revision, StoreError> {
        let compare = txn.compares().iter().map(|compare| CompareRequest {
            key: self.key(&compare.key),
            target: "MOD",
            result: "EQUAL",
            mod_revision: compare.revision.0.to_string(),
        });
        let look = |key: &str| RangeRequest {
            key: self.key(key),
            range_end: None,
            limit: None,
            keys_only: true,
        };
        let request = TxnRequest {
            compare: compare.collect(),
            success: txn.changes().iter().map(|change| self.operation(change)).collect(),
            failure: txn.compares().iter().map(|c| Operation::Range(look(&c.key))).collect(),
        };
        let leases = txn.changes().iter().filter_map(|change| match change {
            Change::Put { lease, .. } => *lease,
            Change::Delete { .. } => None,
        });
        let lease = leases.into_iter().next();
        let answer: TxnAnswer =
            self.call("/v3/kv/txn", &request, Kind::Once).map_err(|e| naming(e, lease))?;
        if answer.succeeded {
            return Ok(Revision(answer.header.revision));
        }
        let found = answer.responses.iter().map(|response| {
            let range = response.response_range.as_ref();
            range.and_then(|range| range.kvs.first()).map_or(0, |found| found.mod_revision)
        });
        let wrong = txn.compares().iter().zip(found).find(|(c, found)| c.revision.0 != *found);
        let key = wrong.map(|(compare, _)| compare.key.clone());
        Err(StoreError::Conflict { key: key.unwrap_or_else(|| "a key".into()) })
    }

    fn operation(&self, change: &Change) -> Operation {
        match change {
            Change::Put { key, value, lease } => Operation::Put(PutRequest {
                key: self.key(key),
                value: encode(value),
                lease: lease.map(|lease| lease.0.to_string()),
            }),
            Change::Delete { key } => Operation::DeleteRange(RangeRequest {
                key: self.key(key),
                range_end: None,
                limit: None,
                keys_only: false,
            }),
        }
    }

    /// Looks what became of a transaction whose answer was lost: whatever it puts is there, whatever it deletes is not. It cannot
    /// be told that it will not be done, as it may still be on its way.
    fn settle(&self, txn: &Txn, reason: String) -> Result<Revision, StoreError> {
        let uncertain = |reason| Err(StoreError::Uncertain { reason });
        let end = Instant::now() + SETTLE_WAIT;
        let mut revision = Revision::ABSENT;
        for change in txn.changes() {
            let found = loop {
                match self.get(change.key()) {
                    Ok(found) => break found,
                    Err(_) if Instant::now() < end => {}
                    Err(_) => return uncertain(reason),
                }
            };
            match (change, found) {
                (Change::Put { value, .. }, Some(found)) if found.value == *value => {
                    let was = txn.compares().iter().find(|compare| compare.key == found.key);
                    if was.is_some_and(|was| was.revision == found.revision) {
                        return uncertain(reason);
                    }
                    revision = found.revision;
                }
                (Change::Delete { .. }, None) => {}
                _ => return uncertain(reason),
            }
        }
        // A transaction that only deletes leaves no trace that tells whose it was.
        if revision == Revision::ABSENT { uncertain(reason) } else { Ok(revision) }
    }
}

impl Drop for EtcdStore {
    /// A runtime may not be waited for on a thread of another one.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Store for EtcdStore {
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let request =
            RangeRequest { key: self.key(key), range_end: None, limit: None, keys_only: false };
        let answer: RangeAnswer = self.call("/v3/kv/range", &request, Kind::Repeatable)?;
        answer.kvs.into_iter().next().map(|found| self.entry(found)).transpose()
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let (mut key, range_end) = self.range(prefix);
        let mut is_past_the_end = false;
        if let Some(after) = after.filter(|after| *after >= prefix) {
            // The next key in the order of bytes.
            key = encode(format!("{}{after}\0", self.prefix).as_bytes());
            is_past_the_end = end_of(prefix).is_some_and(|end| after >= end.as_str());
        }
        // No entries are asked for as one and thrown away: 0 is no limit in etcd's words.
        let asked = limit.clamp(1, MAX_PAGE);
        let request =
            RangeRequest { key, range_end, limit: Some(asked.to_string()), keys_only: false };
        let answer: RangeAnswer = self.call("/v3/kv/range", &request, Kind::Repeatable)?;
        let revision = Revision(answer.header.revision);
        if is_past_the_end {
            return Ok(Page { entries: Vec::new(), more: false, revision });
        }
        if limit == 0 {
            let more = !answer.kvs.is_empty();
            return Ok(Page { entries: Vec::new(), more, revision });
        }
        let entries: Result<Vec<_>, _> =
            answer.kvs.into_iter().map(|found| self.entry(found)).collect();
        Ok(Page { entries: entries?, more: answer.more, revision })
    }

    fn commit(&self, txn: &Txn) -> Result<Revision, StoreError> {
        txn.check()?;
        match self.try_commit(txn) {
            Err(StoreError::Uncertain { reason }) => self.settle(txn, reason),
            outcome => outcome,
        }
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let (key, range_end) = self.range(prefix);
        let from = watch::Range { key, range_end, prefix: self.prefix.clone() };
        Ok(Box::new(watch::start(self.runtime()?, Arc::clone(&self.http), from, after)))
    }

    fn grant(&self, life: Duration) -> Result<Lease, StoreError> {
        super::lease::check_life(life)?;
        let request = GrantRequest { ttl: life.as_secs().to_string() };
        // A lease that nobody knows of ends by itself.
        let answer: LeaseAnswer = self.call("/v3/lease/grant", &request, Kind::Repeatable)?;
        Ok(Lease(answer.id))
    }

    fn keep_alive(&self, lease: Lease) -> Result<(), StoreError> {
        let request = LeaseRequest { id: lease.0.to_string() };
        let answer: Streamed<LeaseAnswer> =
            self.call("/v3/lease/keepalive", &request, Kind::Repeatable)?;
        match answer.result {
            Some(kept) if kept.ttl > 0 => Ok(()),
            Some(_) => Err(StoreError::LeaseLost { lease }),
            None => Err(StoreError::Unavailable {
                reason: format!("the lease was not kept: {}", answer.error.unwrap_or_default()),
            }),
        }
    }

    fn revoke(&self, lease: Lease) -> Result<(), StoreError> {
        let request = LeaseRequest { id: lease.0.to_string() };
        match self.call::<_, wire::Nothing>("/v3/lease/revoke", &request, Kind::Repeatable) {
            Ok(_) | Err(StoreError::LeaseLost { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// The key without the prefix of the settings.
fn plain_key(prefix: &str, key: &[u8]) -> Result<String, StoreError> {
    let key = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(prefix));
    key.map(ToOwned::to_owned).ok_or_else(|| StoreError::Refused {
        reason: "etcd sent a key that was not asked for".into(),
    })
}

/// A lease that etcd does not name in its error; no lease has this number.
const UNNAMED: Lease = Lease(0);

/// Names the lease of the call in an error.
fn naming(error: StoreError, lease: Option<Lease>) -> StoreError {
    match (error, lease) {
        (StoreError::LeaseLost { .. }, Some(lease)) => StoreError::LeaseLost { lease },
        (error, _) => error,
    }
}

fn lost_fault(lost: Lost, kind: Kind) -> StoreError {
    match (lost, kind) {
        (Lost::Sent(reason), Kind::Once) => StoreError::Uncertain { reason },
        (lost, _) => StoreError::Unavailable { reason: lost.reason() },
    }
}

fn decode<T: DeserializeOwned>(answer: &Answer, kind: Kind) -> Result<T, StoreError> {
    if !answer.status.is_success() {
        return Err(error_fault(answer, kind));
    }
    serde_json::from_slice(&answer.body).map_err(|e| {
        let reason = format!("etcd sent what is no answer: {e}");
        // It was done, but nobody knows with what outcome.
        if kind == Kind::Once {
            StoreError::Uncertain { reason }
        } else {
            StoreError::Refused { reason }
        }
    })
}

fn error_fault(answer: &Answer, kind: Kind) -> StoreError {
    let said: ErrorAnswer = serde_json::from_slice(&answer.body).unwrap_or_else(|_| ErrorAnswer {
        error: format!("HTTP status {}", answer.status),
        code: code::UNSAID[0],
    });
    let reason = said.error;
    match said.code {
        said if code::UNSAID.contains(&said) && kind == Kind::Once => {
            StoreError::Uncertain { reason }
        }
        said if code::UNSAID.contains(&said) => StoreError::Unavailable {
            reason: format!("{reason}; are more than half of the etcd nodes up?"),
        },
        code::NOT_FOUND if reason.contains("lease") => StoreError::LeaseLost { lease: UNNAMED },
        _ => StoreError::Refused { reason },
    }
}
