//! The embedded store: a redb file that belongs to one controld.
//!
//! Owns the file and the leases, which live as long as the process that asked for them: no other one has the file. Must not know
//! what is kept. Flow of a commit: compare and change within one transaction of redb, which flushes, then note the events in
//! the journal, where watches find them.

mod journal;
mod leases;

use super::{
    Change, Entry, Lease, MAX_PAGE, Page, Revision, Store, StoreError, Txn, Watch, end_of,
};
use journal::{Journal, JournalWatch, event};
use leases::Leases;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use rustix::fs::{Mode, OFlags};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Version of what is in the file.
const FORMAT: u64 = 1;

/// Memory for pages of the file: the inventory of 100,000 VMs is some 100 MB, of which a part is looked at often.
const CACHE: usize = 64 << 20;

/// Key, and its revision, lease (0 for none) and value.
const ENTRIES: TableDefinition<&str, (u64, i64, &[u8])> = TableDefinition::new("entries");

/// The numbers of the store itself.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Name in [`META`] of the version.
const FORMAT_NAME: &str = "format";

/// Name in [`META`] of the last revision.
const REVISION_NAME: &str = "revision";

/// The store in one file.
pub struct EmbeddedStore {
    core: Arc<Core>,
}

/// What a store and its watches share.
struct Core {
    path: PathBuf,
    database: Database,
    journal: Journal,
    /// Taken for the whole of a commit, so that events come in order.
    leases: Mutex<Leases>,
}

type Fallible<T> = Result<T, redb::Error>;
type Table<'t> = redb::Table<'t, &'static str, (u64, i64, &'static [u8])>;

impl EmbeddedStore {
    /// Opens the file, or makes it, readable for nobody else. Leases of the process that had it before are over.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Damaged`], [`StoreError::Unsupported`], [`StoreError::Io`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let fault = |e: redb::Error| fault(path, e);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let made = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR);
        let file = made.map_err(|e| StoreError::Io {
            doing: "open",
            path: path.to_owned(),
            source: e.into(),
        })?;
        let mut builder = Database::builder();
        let backend = FileBackend::new(file.into()).map_err(|e| fault(e.into()))?;
        let database = builder.set_cache_size(CACHE).create_with_backend(backend);
        let database = database.map_err(|e| fault(e.into()))?;
        let (format, revision) = begin(&database).map_err(fault)?;
        if format != FORMAT {
            let path = path.to_owned();
            return Err(StoreError::Unsupported { path, found: format, known: FORMAT });
        }
        let core = Core {
            path: path.to_owned(),
            database,
            journal: Journal::new(Revision(revision)),
            leases: Mutex::default(),
        };
        Ok(Self { core: Arc::new(core) })
    }
}

/// Makes the tables, deletes what was under a lease, and returns version and last revision.
fn begin(database: &Database) -> Fallible<(u64, u64)> {
    let txn = database.begin_write()?;
    let found = {
        let mut meta = txn.open_table(META)?;
        let mut entries = txn.open_table(ENTRIES)?;
        let read = |name| meta.get(name).map(|value| value.map(|value| value.value()));
        let format = read(FORMAT_NAME)?.unwrap_or(FORMAT);
        let revision = read(REVISION_NAME)?.unwrap_or(0);
        if format == FORMAT {
            meta.insert(FORMAT_NAME, FORMAT)?;
            entries.retain(|_, (_, lease, _)| lease == 0)?;
        }
        (format, revision)
    };
    txn.commit()?;
    Ok(found)
}

impl Core {
    /// The lock of the leases, after those that are due have been ended.
    fn settled(&self) -> Result<MutexGuard<'_, Leases>, StoreError> {
        // A panic cannot leave it half changed: each change is one operation of a map.
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while let Some(due) = leases.due(now) {
            self.end_lease(&mut leases, due)?;
        }
        Ok(leases)
    }

    fn end_lease(&self, leases: &mut Leases, lease: Lease) -> Result<(), StoreError> {
        let keys = leases.keys(lease);
        if !keys.is_empty() {
            let txn = keys.into_iter().fold(Txn::new(), Txn::delete);
            self.write(leases, &txn)?;
        }
        leases.forget(lease);
        Ok(())
    }

    fn write(&self, leases: &mut Leases, txn: &Txn) -> Result<Revision, StoreError> {
        let done = self.try_write(leases, txn).map_err(|e| fault(&self.path, e))?;
        let (revision, events) = done?;
        leases.follow(txn);
        self.journal.add(revision, events);
        Ok(revision)
    }

    /// The transaction itself; the inner error is a comparison that did not hold.
    fn try_write(
        &self,
        leases: &Leases,
        txn: &Txn,
    ) -> Fallible<Result<(Revision, Vec<super::Event>), StoreError>> {
        let write = self.database.begin_write()?;
        let mut events = Vec::new();
        let revision;
        {
            let mut entries = write.open_table(ENTRIES)?;
            if let Some(key) = first_conflict(&entries, txn)? {
                return Ok(Err(StoreError::Conflict { key }));
            }
            if let Some(lease) = leases.first_unknown(txn) {
                return Ok(Err(StoreError::LeaseLost { lease }));
            }
            let mut meta = write.open_table(META)?;
            let last = meta.get(REVISION_NAME)?.map_or(0, |value| value.value());
            revision = Revision(last + 1);
            for change in txn.changes() {
                if apply(&mut entries, change, revision)? {
                    events.push(event(change, revision));
                }
            }
            meta.insert(REVISION_NAME, revision.0)?;
        }
        match write.commit() {
            Ok(()) => Ok(Ok((revision, events))),
            // The flush failed: what the disk has is anybody's guess.
            Err(e) => {
                let reason = format!("{}: {e}", self.path.display());
                Ok(Err(StoreError::Uncertain { reason }))
            }
        }
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&redb::ReadOnlyTable<&'static str, (u64, i64, &'static [u8])>) -> Fallible<T>,
    ) -> Result<T, StoreError> {
        let read = || {
            let txn = self.database.begin_read()?;
            work(&txn.open_table(ENTRIES)?)
        };
        read().map_err(|e| fault(&self.path, e))
    }
}

/// Whether something changed.
fn apply(entries: &mut Table<'_>, change: &Change, revision: Revision) -> Fallible<bool> {
    Ok(match change {
        Change::Put { key, value, lease } => {
            let lease = lease.map_or(0, |lease| lease.0);
            entries.insert(key.as_str(), (revision.0, lease, value.as_slice()))?;
            true
        }
        Change::Delete { key } => entries.remove(key.as_str())?.is_some(),
    })
}

fn first_conflict(entries: &Table<'_>, txn: &Txn) -> Fallible<Option<String>> {
    for compare in txn.compares() {
        let found = entries.get(compare.key.as_str())?.map_or(0, |entry| entry.value().0);
        if found != compare.revision.0 {
            return Ok(Some(compare.key.clone()));
        }
    }
    Ok(None)
}

impl Store for EmbeddedStore {
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        drop(self.core.settled()?);
        self.core.read(|entries| {
            Ok(entries.get(key)?.map(|found| {
                let (revision, _, value) = found.value();
                entry(key, revision, value)
            }))
        })
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        // The revision is read first: what comes after it may be in the page, and will be told by a watch as well.
        drop(self.core.settled()?);
        let revision = self.core.journal.latest();
        let limit = limit.min(MAX_PAGE);
        let end = end_of(prefix);
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        if let (Bound::Excluded(from), Some(end)) = (from, end.as_deref())
            && from >= end
        {
            return Ok(Page { entries: Vec::new(), more: false, revision });
        }
        let (entries, more) = self.core.read(|table| {
            let mut range = table.range::<&str>((from, to))?;
            let mut entries = Vec::new();
            for found in range.by_ref().take(limit) {
                let (key, value) = found?;
                let (revision, _, value) = value.value();
                entries.push(entry(key.value(), revision, value));
            }
            let more = range.next().transpose()?.is_some();
            Ok((entries, more))
        })?;
        Ok(Page { entries, more, revision })
    }

    fn commit(&self, txn: &Txn) -> Result<Revision, StoreError> {
        txn.check()?;
        let mut leases = self.core.settled()?;
        self.core.write(&mut leases, txn)
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let place = JournalWatch::new(prefix, after);
        Ok(Box::new(EmbeddedWatch { core: Arc::clone(&self.core), place }))
    }

    fn grant(&self, life: Duration) -> Result<Lease, StoreError> {
        super::lease::check_life(life)?;
        Ok(self.core.settled()?.grant(life, Instant::now()))
    }

    fn keep_alive(&self, lease: Lease) -> Result<(), StoreError> {
        let kept = self.core.settled()?.keep(lease, Instant::now());
        if kept { Ok(()) } else { Err(StoreError::LeaseLost { lease }) }
    }

    fn revoke(&self, lease: Lease) -> Result<(), StoreError> {
        let mut leases = self.core.settled()?;
        self.core.end_lease(&mut leases, lease)
    }
}

struct EmbeddedWatch {
    core: Arc<Core>,
    place: JournalWatch,
}

impl Watch for EmbeddedWatch {
    fn next(&mut self, wait: Duration) -> Result<Vec<super::Event>, StoreError> {
        let end = Instant::now() + wait;
        loop {
            // A lease that ends meanwhile is a change, and nobody else may be there to see it.
            let next_due = self.core.settled()?.next_due();
            let until = next_due.map_or(end, |due| due.min(end));
            let events = self.place.wait(&self.core.journal, until)?;
            if !events.is_empty() || Instant::now() >= end {
                return Ok(events);
            }
        }
    }
}

fn entry(key: &str, revision: u64, value: &[u8]) -> Entry {
    Entry { key: key.to_owned(), value: value.to_owned(), revision: Revision(revision) }
}

/// What redb says, by who must act.
fn fault(path: &Path, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
            StoreError::InUse { path }
        }
        redb::Error::Io(source) if source.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::Damaged { path, reason: source.to_string() }
        }
        redb::Error::Io(source) => StoreError::Io { doing: "use", path, source },
        redb::Error::PreviousIo => {
            let reason = "an earlier write to it failed";
            StoreError::Io { doing: "use", path, source: std::io::Error::other(reason) }
        }
        other => StoreError::Damaged { path, reason: other.to_string() },
    }
}

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;
