//! Several requests of one connection in the storage at once.

use super::support::{LIMITS, SIZE, Served, Session, export, file, request};
use cryptfs::backing::{Alignment, Backing, Call, Fault, FaultyBacking, When};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};
use vmd::nbd::connection::ConnectionError;

const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;

/// From here on the storage is slow, as a drive is; below, everything is in its cache.
const SLOW: u64 = SIZE / 2;

/// Threads of a connection.
const THREADS: u64 = 16;

/// A storage whose slow half, and whose flush, waits until it is let go; as one past the page cache its writes, too.
struct Gate {
    inner: FaultyBacking,
    past_the_cache: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    inside: u64,
    writers: HashSet<ThreadId>,
}

impl Gate {
    fn new() -> Arc<Self> {
        Self::make(false)
    }

    fn past_the_cache() -> Arc<Self> {
        Self::make(true)
    }

    fn make(past_the_cache: bool) -> Arc<Self> {
        let inner = FaultyBacking::new(SIZE);
        Arc::new(Self { inner, past_the_cache, state: Mutex::default(), changed: Condvar::new() })
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.inside += 1;
        self.changed.notify_all();
        while !state.open {
            state = self.changed.wait(state).unwrap();
        }
        state.inside -= 1;
    }

    fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }

    /// Waits until so many requests wait in it.
    fn holds(&self, count: u64) {
        let state = self.state.lock().unwrap();
        let limit = Duration::from_secs(20);
        let waited = self.changed.wait_timeout_while(state, limit, |state| state.inside < count);
        assert!(!waited.unwrap().1.timed_out(), "fewer than {count} are in the storage");
    }
}

impl Backing for Gate {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset >= SLOW {
            self.pass();
        }
        self.inner.read_at(offset, buf)
    }
    fn read_ready(&self, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        if offset >= SLOW { Ok(false) } else { self.inner.read_at(offset, buf).map(|()| true) }
    }
    fn alignment(&self) -> Option<Alignment> {
        if self.past_the_cache { Alignment::new(512, 512) } else { None }
    }
    fn waits_on_write(&self) -> bool {
        self.past_the_cache
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.state.lock().unwrap().writers.insert(thread::current().id());
        if self.past_the_cache && offset >= SLOW {
            self.pass();
        }
        self.inner.write_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.pass();
        self.inner.flush()
    }
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.punch(offset, len)
    }
    fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.zero_range(offset, len)
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.inner.next_data(offset)
    }
    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.inner.next_hole(offset)
    }
}

fn gated() -> (Arc<Gate>, Session) {
    let gate = Gate::new();
    let session = Session::transmitting(export(Box::new(Arc::clone(&gate)), SIZE, false));
    (gate, session)
}

/// Requests as one message, so that the server sees them together.
fn send(session: &mut Session, requests: &[(u16, u64, u64, u32)]) {
    let bytes: Vec<u8> = requests
        .iter()
        .flat_map(|(command, cookie, offset, length)| {
            request(*command, 0, *cookie, *offset, *length).encode()
        })
        .collect();
    session.client.send(&bytes);
}

fn past_the_cache() -> (Arc<Gate>, Session) {
    let gate = Gate::past_the_cache();
    let session = Session::transmitting(export(Box::new(Arc::clone(&gate)), SIZE, false));
    (gate, session)
}

/// Writes of one byte over and over, one behind the other in one message: cookie, offset, length, byte.
fn send_writes(session: &mut Session, writes: &[(u64, u64, u32, u8)]) {
    let mut bytes = Vec::new();
    for (cookie, offset, length, byte) in writes {
        bytes.extend(request(WRITE, 0, *cookie, *offset, *length).encode());
        bytes.resize(bytes.len() + usize::try_from(*length).unwrap(), *byte);
    }
    session.client.send(&bytes);
}

/// The replies to so many requests without data in them, by cookie.
fn replies(session: &mut Session, count: usize) -> HashMap<u64, u32> {
    let replies: HashMap<_, _> = (0..count).map(|_| session.client.reply()).collect();
    assert_eq!(replies.len(), count, "a cookie came twice");
    replies
}

#[test]
fn writes_past_the_page_cache_overlap_and_hold_nobody_up() {
    let (gate, mut session) = past_the_cache();
    // Long ones, a sector, and bytes that are not aligned; no two of those at sectors that share a lock.
    let lengths = [256 * 1024, 512, 5000, 65_536];
    let writes: Vec<_> = (0..THREADS - 1)
        .map(|i| {
            let length = lengths[usize::try_from(i).unwrap() % lengths.len()];
            (i, SLOW + i * (256 * 1024 + 512) + i % 2, length, u8::try_from(i + 1).unwrap())
        })
        .collect();
    send_writes(&mut session, &writes);
    gate.holds(THREADS - 1);
    assert_eq!(session.client.read(0, 512).unwrap(), [0; 512]);
    assert_eq!(session.client.write(512, &[9; 512]), 0);
    gate.open();
    assert!(replies(&mut session, writes.len()).values().all(|error| *error == 0));
    for (_, offset, length, byte) in writes {
        let data = session.client.read(offset, length).unwrap();
        assert!(data.iter().all(|found| *found == byte), "{offset}");
    }
    assert_eq!(session.client.read(512, 512).unwrap(), [9; 512]);
    session.end().unwrap();
}

/// Two in flight, of which the second comes when the first has been received already.
#[test]
fn the_second_of_two_writes_is_seen_in_the_socket() {
    let (gate, mut session) = past_the_cache();
    let (first, second) = ((1, SLOW, 300 * 1024, 1), (2, SLOW + 512 * 1024, 300 * 1024, 2));
    send_writes(&mut session, &[first, second]);
    gate.holds(2);
    gate.open();
    assert_eq!(replies(&mut session, 2), HashMap::from([(1, 0), (2, 0)]));
    session.end().unwrap();
}

#[test]
fn a_write_alone_is_done_where_it_was_received() {
    let (gate, mut session) = past_the_cache();
    gate.open();
    for i in 0..100u64 {
        let byte = u8::try_from(i).unwrap();
        assert_eq!(session.client.write(SLOW + i * 512, &[byte; 512]), 0);
    }
    assert_eq!(gate.state.lock().unwrap().writers.len(), 1, "it went from thread to thread");
    session.end().unwrap();
}

/// Its own payload, which came with it, is no request behind it.
#[test]
fn a_long_write_alone_is_done_where_it_was_received() {
    for (gate, mut session) in [gated(), past_the_cache()] {
        gate.open();
        for i in 0..20u64 {
            let byte = u8::try_from(i).unwrap();
            assert_eq!(session.client.write(i * 4096, &[byte; 256 * 1024]), 0);
        }
        assert_eq!(gate.state.lock().unwrap().writers.len(), 1, "it went from thread to thread");
        session.end().unwrap();
    }
}

#[test]
fn a_write_that_fails_among_others_fails_alone_and_with_its_own_code() {
    let (gate, mut session) = past_the_cache();
    gate.open();
    for (sector, errno) in [(3, 5), (5, 28), (7, 22)] {
        let when = When::Covers(SLOW + sector * 4096);
        gate.inner.inject(Fault { when, on: Some(Call::Write), errno, short: 0 });
    }
    let writes: Vec<_> = (0..12).map(|i| (i, SLOW + i * 4096, 4096, 7)).collect();
    send_writes(&mut session, &writes);
    let replies = replies(&mut session, writes.len());
    for (cookie, error) in replies {
        // The protocol has no better word for EINVAL of the storage than EIO.
        let expected = match cookie {
            3 | 7 => 5,
            5 => 28,
            _ => 0,
        };
        assert_eq!(error, expected, "{cookie}");
    }
    gate.inner.heal();
    for (cookie, offset, _, _) in writes {
        let byte = if [3, 5, 7].contains(&cookie) { 0 } else { 7 };
        assert_eq!(session.client.read(offset, 4096).unwrap(), [byte; 4096]);
    }
    session.end().unwrap();
}

#[test]
fn writes_in_the_storage_are_answered_before_a_leave() {
    let (gate, mut session) = past_the_cache();
    send_writes(&mut session, &[(1, SLOW, 4096, 1), (2, SLOW + 4096, 4096, 2)]);
    gate.holds(2);
    send(&mut session, &[(2, 0, 0, 0)]);
    gate.open();
    assert_eq!(replies(&mut session, 2), HashMap::from([(1, 0), (2, 0)]));
    assert!(session.client.is_at_end() || session.server.is_finished());
    session.end().unwrap();
}

#[test]
fn a_slow_read_and_a_flush_hold_nobody_up() {
    let (gate, mut session) = gated();
    send(&mut session, &[(READ, 1, SLOW, 512), (FLUSH, 2, 0, 0), (READ, 3, 0, 512)]);
    assert_eq!(session.client.reply(), (3, 0));
    session.client.receive::<512>();
    gate.holds(2);
    // And so does what comes later.
    assert_eq!(session.client.write(512, &[7; 512]), 0);
    assert_eq!(session.client.read(512, 512).unwrap(), [7; 512]);
    gate.open();
    let mut late = [session.client.reply()];
    if late[0].0 == 1 {
        session.client.receive::<512>();
        late[0] = session.client.reply();
        assert_eq!(late[0], (2, 0));
    } else {
        assert_eq!(session.client.reply(), (1, 0));
        session.client.receive::<512>();
    }
    session.end().unwrap();
}

#[test]
fn a_read_alone_is_worked_on_where_it_was_received() {
    let (gate, mut session) = gated();
    gate.open();
    for i in 0..100 {
        assert_eq!(session.client.read(SLOW + i * 512, 512).unwrap(), [0; 512]);
    }
    session.end().unwrap();
}

#[test]
fn as_many_requests_as_threads_are_in_the_storage_and_the_rest_wait() {
    let (gate, mut session) = gated();
    let requests: Vec<_> = (0..3 * THREADS).map(|i| (READ, i, SLOW + i * 512, 512)).collect();
    send(&mut session, &requests);
    gate.holds(THREADS);
    gate.open();
    let mut cookies: Vec<u64> = requests
        .iter()
        .map(|_| {
            let (cookie, error) = session.client.reply();
            assert_eq!(error, 0);
            assert_eq!(session.client.receive(), [0; 512]);
            cookie
        })
        .collect();
    cookies.sort_unstable();
    assert!(cookies.into_iter().eq(0..3 * THREADS));
    session.end().unwrap();
}

#[test]
fn what_is_in_the_storage_is_answered_before_a_leave() {
    let (gate, mut session) = gated();
    send(&mut session, &[(READ, 1, SLOW, 512), (READ, 2, SLOW, 512), (2, 0, 0, 0)]);
    gate.holds(2);
    gate.open();
    for _ in 0..2 {
        assert_eq!(session.client.reply().1, 0);
        session.client.receive::<512>();
    }
    assert!(session.client.is_at_end() || session.server.is_finished());
    session.end().unwrap();
}

#[test]
fn what_is_in_the_storage_is_answered_before_a_violation_ends_it() {
    let (gate, mut session) = gated();
    send(&mut session, &[(READ, 1, SLOW, 512), (READ, 2, SLOW, 512)]);
    gate.holds(2);
    session.client.send(&[0; 28]);
    gate.open();
    for _ in 0..2 {
        assert_eq!(session.client.reply().1, 0);
        session.client.receive::<512>();
    }
    assert!(matches!(session.end(), Err(ConnectionError::Client(_))));
}

#[test]
fn a_client_that_vanishes_leaves_no_thread_behind() {
    let gate = Gate::new();
    let served = Served::new(export(Box::new(Arc::clone(&gate)), SIZE, false), LIMITS);
    let mut client = served.connect();
    client.go();
    let bytes: Vec<u8> =
        (0..4).flat_map(|i| request(READ, 0, i, SLOW + i * 512, 512).encode()).collect();
    client.send(&bytes);
    gate.holds(4);
    drop(client);
    gate.open();
    // The stop waits for the threads, and then holds the export alone.
    served.server.stop(Duration::from_secs(10)).ok().unwrap().close().unwrap();
}

/// A storage out of whose cache nothing comes, that counts what was read from it.
struct Cold {
    inner: Box<dyn Backing>,
    reads: Mutex<u64>,
    changed: Condvar,
}

impl Cold {
    /// The reads that have begun, as soon as they are more than `limit`, or do not become more for a while.
    fn begun_beyond(&self, limit: u64) -> u64 {
        let reads = self.reads.lock().unwrap();
        let a_while = Duration::from_secs(1);
        let waited = self.changed.wait_timeout_while(reads, a_while, |reads| *reads <= limit);
        *waited.unwrap().0
    }
}

impl Backing for Cold {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        *self.reads.lock().unwrap() += 1;
        self.changed.notify_all();
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.punch(offset, len)
    }
    fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.zero_range(offset, len)
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.inner.next_data(offset)
    }
    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.inner.next_hole(offset)
    }
}

/// Answers that a client does not take are in memory, so there are 64 MiB of them, and one at the desk.
#[test]
fn long_reads_of_a_client_that_does_not_listen_wait() {
    const LONG: u64 = 8 * 1024 * 1024;
    const AT_ONCE: u64 = 64 * 1024 * 1024 / LONG + 1;
    let cold = Cold { inner: file(LONG), reads: Mutex::default(), changed: Condvar::new() };
    let cold = Arc::new(cold);
    let mut session = Session::transmitting(export(Box::new(Arc::clone(&cold)), LONG, false));
    let long = u32::try_from(LONG).unwrap();
    let requests: Vec<_> = (0..THREADS).map(|i| (READ, i, 0, long)).collect();
    send(&mut session, &requests);
    assert_eq!(cold.begun_beyond(AT_ONCE), AT_ONCE);
    let mut cookies = HashSet::new();
    for taken in 1..=THREADS {
        let (cookie, error) = session.client.reply();
        assert_eq!(error, 0);
        assert_eq!(session.client.receive_vec(usize::try_from(LONG).unwrap()), vec![0; 8 << 20]);
        assert!(cookies.insert(cookie), "a second reply to {cookie}");
        // The next answer may be on its way for the most part.
        assert!(*cold.reads.lock().unwrap() <= AT_ONCE + taken + 1);
    }
    assert_eq!(*cold.reads.lock().unwrap(), THREADS);
    session.end().unwrap();
}

/// What threads keep for the next long request is counted like what they have in their hands, and given back after a
/// while.
#[test]
fn buffers_that_threads_keep_are_counted_and_given_back() {
    const LONG: u32 = 1024 * 1024;
    const MOST: u64 = 64 * 1024 * 1024;
    let gate = Gate::new();
    let served = Served::new(export(Box::new(Arc::clone(&gate)), SIZE, false), LIMITS);
    let mut client = served.connect();
    client.go();
    let count = SIZE / 2 / u64::from(LONG);
    let reads = (0..count).map(|i| request(READ, 0, i, SLOW + i * u64::from(LONG), LONG).encode());
    client.send(&reads.flatten().collect::<Vec<u8>>());
    gate.holds(count);
    // All but the one at the desk, which nobody needs to count.
    let in_hand = served.server.export().payload_bytes();
    assert!(in_hand >= (count - 1) * u64::from(LONG) && in_hand <= MOST, "{in_hand}");
    gate.open();
    for _ in 0..count {
        assert_eq!(client.reply().1, 0);
        assert_eq!(client.receive_vec(usize::try_from(LONG).unwrap()), vec![0; 1 << 20]);
    }
    assert!(served.server.export().payload_bytes() <= MOST);
    let end = Instant::now() + Duration::from_secs(60);
    while served.server.export().payload_bytes() > 0 {
        assert!(Instant::now() < end, "{} stay", served.server.export().payload_bytes());
        thread::sleep(Duration::from_millis(20));
    }
    drop(client);
    assert!(served.server.stop(Duration::from_secs(10)).is_ok());
}

/// A buffer that grew for a long payload goes along with a short one: it counts as what it is.
#[test]
fn a_large_buffer_that_goes_along_with_a_short_payload_is_counted() {
    const LONG: u32 = 8 * 1024 * 1024;
    let gate = Gate::past_the_cache();
    let served = Served::new(export(Box::new(Arc::clone(&gate)), SIZE, false), LIMITS);
    let mut client = served.connect();
    client.go();
    let mut short = Vec::new();
    for cookie in [1, 2] {
        short.extend(request(WRITE, 0, cookie, SLOW + cookie * 4096, 4096).encode());
        short.extend([9; 4096]);
    }
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        gate.open();
        assert_eq!(client.write(0, &vec![1; usize::try_from(LONG).unwrap()]), 0);
        gate.state.lock().unwrap().open = false;
        client.send(&short);
        gate.holds(2);
        let counted = served.server.export().payload_bytes();
        gate.open();
        assert_eq!((client.reply().1, client.reply().1), (0, 0));
        // After a second without a request the buffer is given back, and this has shown nothing.
        if counted >= u64::from(LONG) {
            break;
        }
        assert!(Instant::now() < end, "{counted} bytes are counted");
    }
    drop(client);
    assert!(served.server.stop(Duration::from_secs(10)).is_ok());
}

/// Long requests go to several threads, whose payloads and replies must not mix.
#[test]
fn long_requests_side_by_side_keep_their_data() {
    const LONG: u32 = 512 * 1024;
    let backings = [file(SIZE), Box::new(Arc::clone(&Gate::new())) as Box<dyn Backing>];
    for backing in backings {
        let mut session = Session::transmitting(export(backing, SIZE, false));
        let mut copy = session.client.stream.try_clone().unwrap();
        let pattern = |round: u64, i: u64| u8::try_from(1 + round * 8 + i).unwrap();
        for round in 0..8u64 {
            let writer = std::thread::spawn(move || {
                for i in 0..8 {
                    let mut bytes =
                        request(WRITE, 0, i, i * u64::from(LONG), LONG).encode().to_vec();
                    bytes.extend(vec![pattern(round, i); usize::try_from(LONG).unwrap()]);
                    // Something short behind it, which may be received with it.
                    bytes.extend(request(READ, 0, 100 + i, SIZE, 1).encode());
                    io::Write::write_all(&mut copy, &bytes).unwrap();
                }
                copy
            });
            let mut replies = HashMap::new();
            while replies.len() < 16 {
                let (cookie, error) = session.client.reply();
                assert!(replies.insert(cookie, error).is_none(), "a second reply to {cookie}");
            }
            copy = writer.join().unwrap();
            for i in 0..8 {
                assert_eq!((replies[&i], replies[&(100 + i)]), (0, 22));
            }
            // Read from the fast half only: nobody opens the gate.
            let reads: Vec<_> = (0..4).map(|i| (READ, i, i * u64::from(LONG), LONG)).collect();
            send(&mut session, &reads);
            for _ in &reads {
                let (cookie, error) = session.client.reply();
                assert_eq!(error, 0);
                let data = session.client.receive_vec(usize::try_from(LONG).unwrap());
                assert!(data.iter().all(|byte| *byte == pattern(round, cookie)), "{cookie}");
            }
        }
        drop(copy);
        session.end().unwrap();
    }
}
