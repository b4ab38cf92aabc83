//! The handshake of one connection on its transport.
//!
//! Owns the loop between socket and [`Negotiation`], and its time limit. It must not know which exports are on
//! offer. Flow: [`Handshake::begin`] greets; [`Handshake::run`] receives, feeds and answers until a verdict;
//! then `connection` takes the parts over for the transmission phase.

use super::connection::{ConnectionError, unsent};
use super::handshake::{Negotiation, Verdict};
use super::inbox::Inbox;
use super::proto::Violation;
use super::proto::negotiation::greeting;
use super::transport::{Patience, Received, Transport};
use rustix::net::sockopt::Timeout;
use std::time::{Duration, Instant};

/// A connection before transmission.
pub(super) struct Handshake<'a> {
    pub(super) transport: Transport<'a>,
    pub(super) inbox: Inbox,
    pub(super) limit: Duration,
    /// End of the time that the client has.
    pub(super) deadline: Instant,
}

impl<'a> Handshake<'a> {
    /// Greets the client, which has `limit` for all of the handshake.
    pub(super) fn begin(
        transport: Transport<'a>,
        limit: Duration,
    ) -> Result<Self, ConnectionError> {
        let deadline = Instant::now() + limit;
        let mut handshake = Self { transport, inbox: Inbox::default(), limit, deadline };
        handshake.set_timeout(Timeout::Send, Some(limit))?;
        handshake.say(&greeting())?;
        Ok(handshake)
    }

    /// Negotiates until `feed`, which is [`Negotiation::feed`] with the offers of this socket, has a verdict other
    /// than [`Verdict::More`]. A client that closes has taken leave.
    pub(super) fn run(
        &mut self,
        negotiation: &mut Negotiation,
        mut feed: impl FnMut(
            &mut Negotiation,
            &[u8],
            &mut Vec<u8>,
        ) -> Result<(usize, Verdict), Violation>,
    ) -> Result<Verdict, ConnectionError> {
        let mut answers = Vec::new();
        loop {
            let left = self.left()?;
            self.set_timeout(Timeout::Recv, Some(left))?;
            let need = self.inbox.unread().len() + 1;
            self.inbox.make_room_for_header(need).map_err(ConnectionError::Memory)?;
            let received = self.inbox.receive(&self.transport, need, Patience::Wait);
            match received.map_err(ConnectionError::Socket)? {
                Received::Bytes(_) => {}
                Received::Closed => return Ok(Verdict::Close),
                Received::Nothing => return Err(ConnectionError::HandshakeTimedOut(self.limit)),
            }
            let outcome = feed(negotiation, self.inbox.unread(), &mut answers);
            self.say(&answers)?;
            answers.clear();
            let (used, verdict) = outcome?;
            self.inbox.consume(used);
            if verdict != Verdict::More {
                return Ok(verdict);
            }
        }
    }

    /// Time that is left.
    fn left(&self) -> Result<Duration, ConnectionError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ConnectionError::HandshakeTimedOut(self.limit));
        }
        Ok(left)
    }

    fn say(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        self.transport.send(bytes).map_err(unsent)
    }

    fn set_timeout(&self, which: Timeout, limit: Option<Duration>) -> Result<(), ConnectionError> {
        self.transport.set_timeout(which, limit).map_err(ConnectionError::Socket)
    }
}
