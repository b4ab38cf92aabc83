//! The token that stands for our certificate.
//!
//! Owns the token and when there must be another one. It must not know servers. Flow: [`Session::token`] gives the one there is, and
//! has a new one made when a third of its time is left; one caller at a time logs in, the others wait for what it brings. A log-in that
//! fails does not matter while the old token is good: a log-in needs the active node, and opening a wrap does not.

use super::answer::Login;
use super::fault::BaoFault;
use crate::kmip::fault::Fault;
use crate::kmip::gate::Gate;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Pause after a log-in that failed while the old token was good.
const PAUSE: Duration = Duration::from_secs(5);

/// A token in use.
pub(super) type Token = Arc<Zeroizing<String>>;

/// The token, for all servers: they share what they know of tokens.
pub(super) struct Session {
    current: Mutex<Option<Current>>,
    /// One logs in at a time.
    gate: Gate,
}

struct Current {
    token: Token,
    /// When a new one is asked for.
    renew: Instant,
    /// When it is over.
    until: Instant,
}

impl Session {
    pub(super) fn new() -> Self {
        Self { current: Mutex::new(None), gate: Gate::new(1) }
    }

    /// The token, and whether it was made just now. `login` makes one.
    pub(super) fn token(
        &self,
        end: Instant,
        login: impl FnOnce() -> Result<Login, BaoFault>,
    ) -> Result<(Token, bool), BaoFault> {
        if let Some(token) = self.good(|current| current.renew) {
            return Ok((token, false));
        }
        let Some(_place) = self.gate.enter(end) else { return Err(Fault::NoTime.into()) };
        if let Some(token) = self.good(|current| current.renew) {
            return Ok((token, false));
        }
        match login() {
            Ok(login) => Ok((self.take(login), true)),
            Err(fault) => self.put_off().map(|token| (token, false)).ok_or(fault),
        }
    }

    /// A token other than `refused`, which a server does not take (any more).
    pub(super) fn another(
        &self,
        refused: &Token,
        end: Instant,
        login: impl FnOnce() -> Result<Login, BaoFault>,
    ) -> Result<Token, BaoFault> {
        let Some(_place) = self.gate.enter(end) else { return Err(Fault::NoTime.into()) };
        if let Some(token) = self.good(|current| current.until)
            && !Arc::ptr_eq(&token, refused)
        {
            return Ok(token);
        }
        Ok(self.take(login()?))
    }

    /// The token, if that time of it has not come.
    fn good(&self, time: impl Fn(&Current) -> Instant) -> Option<Token> {
        let current = self.current();
        let current = current.as_ref().filter(|current| Instant::now() < time(current))?;
        Some(Arc::clone(&current.token))
    }

    /// Keeps the old token, if it is good, and asks for no other for a while.
    fn put_off(&self) -> Option<Token> {
        let now = Instant::now();
        let mut current = self.current();
        let current = current.as_mut().filter(|current| now < current.until)?;
        current.renew = now + PAUSE;
        Some(Arc::clone(&current.token))
    }

    fn take(&self, login: Login) -> Token {
        let (now, token) = (Instant::now(), Arc::new(login.token));
        let renew = now + login.lease / 3 * 2;
        let until = now + login.lease;
        *self.current() = Some(Current { token: Arc::clone(&token), renew, until });
        token
    }

    /// Replaced as a whole, so a panic elsewhere cannot leave it half changed.
    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(token: &str, lease: Duration) -> Result<Login, BaoFault> {
        Ok(Login { token: Zeroizing::new(token.to_owned()), lease })
    }

    fn refused() -> Result<Login, BaoFault> {
        Err(BaoFault::Sealed)
    }

    #[test]
    fn a_token_is_used_until_a_third_of_its_time_is_left() {
        let (session, end) = (Session::new(), Instant::now() + Duration::from_secs(60));
        assert!(matches!(session.token(end, refused), Err(BaoFault::Sealed)));
        let hour = Duration::from_secs(3600);
        let (first, fresh) = session.token(end, || login("one", hour)).unwrap();
        assert!(fresh && first.as_str() == "one");
        let (again, fresh) = session.token(end, || panic!("there is one")).unwrap();
        assert!(!fresh && Arc::ptr_eq(&again, &first));
        // A third is left.
        if let Some(current) = session.current().as_mut() {
            current.renew = Instant::now();
        }
        let (old, fresh) = session.token(end, refused).unwrap();
        assert!(!fresh && Arc::ptr_eq(&old, &first), "a failed log-in leaves the old one");
        session.token(end, || panic!("not again at once")).unwrap();
        if let Some(current) = session.current().as_mut() {
            current.renew = Instant::now();
        }
        assert_eq!(session.token(end, || login("two", hour)).unwrap().0.as_str(), "two");
    }

    #[test]
    fn a_token_that_is_over_or_refused_is_replaced() {
        let (session, end) = (Session::new(), Instant::now() + Duration::from_secs(60));
        session.token(end, || login("one", Duration::ZERO)).unwrap();
        assert!(matches!(session.token(end, refused), Err(BaoFault::Sealed)));
        let hour = Duration::from_secs(3600);
        let (two, _) = session.token(end, || login("two", hour)).unwrap();
        let three = session.another(&two, end, || login("three", hour)).unwrap();
        // Another caller with the same refused token gets what the first one got.
        let same = session.another(&two, end, || panic!("there is another")).unwrap();
        assert!(Arc::ptr_eq(&same, &three));
        assert!(matches!(session.another(&three, end, refused), Err(BaoFault::Sealed)));
    }
}
