//! The thread that checks the servers of a provider from time to time.
//!
//! Owns the thread and its end. It must not know what is checked. Flow: [`Checker::start`] checks at once and then after each pause;
//! dropping ends it, once the check that is under way has ended.

use crate::KmsError;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running thread.
pub(crate) struct Checker {
    /// Dropped to end it.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checker {
    /// Starts it. Pauses vary by a quarter, so that hosts that started together do not check together.
    ///
    /// # Errors
    /// [`KmsError::Config`] when there cannot be another thread.
    pub(crate) fn start(
        name: &str,
        every: Duration,
        check: impl Fn() + Send + 'static,
    ) -> Result<Self, KmsError> {
        let (stop, stopped) = channel();
        let work = move || {
            loop {
                check();
                let part = f64::from(crate::kmip::cluster::random()) / f64::from(u32::MAX);
                let pause = every.mul_f64(1.0 + part / 4.0);
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        let thread = thread.map_err(|e| KmsError::Config {
            origin: "the thread that checks key servers".to_owned(),
            problem: format!("cannot be started ({e})"),
            remedy: "raise the limit of threads".to_owned(),
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Every check has an end, so this does. A check that panicked has said so.
            let _ = thread.join();
        }
    }
}
