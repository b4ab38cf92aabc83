//! What was found at run time and an operator should know.
//!
//! Owns the list that `coffer host status` shows, and what is withdrawn from it when; must not know how things are
//! found. Flow: whoever finds something wrong says it by [`Host::warn`] when it has happened, or by
//! [`Host::warn_while`] when it is so at the moment, and withdraws that when it is so no more.

use crate::host::Host;
use std::sync::{MutexGuard, PoisonError};

/// Most warnings found at run time that are kept; they serve a person, who reads a page.
const MAX_WARNINGS: usize = 100;

/// Something found at run time that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Warning {
    /// The VM that it is about; it is withdrawn when that VM starts or stops well.
    vm: Option<String>,
    topic: Topic,
    text: String,
}

/// What a warning is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    /// Something has happened, and remains so.
    Event,
    /// The lease of a home cannot be renewed or taken up at the moment.
    Lease,
    /// Other hosts are not told that disks are in use.
    Mark,
    /// Running VMs cannot be looked for at the moment.
    Search,
}

impl Host {
    /// Notes something that has happened, and that an operator should know.
    pub(crate) fn warn(&self, vm: Option<&str>, text: String) {
        self.warn_while(Topic::Event, vm, text);
    }

    /// Notes something that an operator should know until it is withdrawn, in the place of what was said of it before.
    pub(crate) fn warn_while(&self, topic: Topic, vm: Option<&str>, text: String) {
        let warning = Warning { vm: vm.map(ToOwned::to_owned), topic, text };
        let mut warnings = self.warnings();
        if warnings.contains(&warning) {
            return;
        }
        tracing::warn!("{}", warning.text);
        if topic != Topic::Event {
            warnings.retain(|w| (w.topic, w.vm.as_deref()) != (topic, vm));
        }
        if warnings.len() < MAX_WARNINGS {
            warnings.push(warning);
        }
    }

    /// Withdraws what was said of a matter that is in order again.
    pub(crate) fn withdraw(&self, topic: Topic, vm: Option<&str>) {
        let mut warnings = self.warnings();
        warnings.retain(|w| (w.topic, w.vm.as_deref()) != (topic, vm));
    }

    /// Withdraws the warnings about a VM.
    pub(crate) fn calm(&self, vm: &str) {
        let mut warnings = self.warnings();
        warnings.retain(|w| w.vm.as_deref() != Some(vm));
    }

    /// All that is noted.
    pub(crate) fn noted(&self) -> Vec<String> {
        self.warnings().iter().map(|warning| warning.text.clone()).collect()
    }

    /// The list is whole after every statement, so a panic elsewhere does not spoil it.
    fn warnings(&self) -> MutexGuard<'_, Vec<Warning>> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestHost;

    #[test]
    fn a_warning_of_a_state_is_replaced_and_withdrawn_and_one_of_an_event_stays() {
        let t = TestHost::new();
        let about = |host: &Host| {
            let all = host.noted();
            all.into_iter().filter(|text| text.starts_with("w:")).collect::<Vec<_>>()
        };
        let vm = Some("web01");
        t.host.warn(vm, "w: it happened".into());
        t.host.warn_while(Topic::Lease, vm, "w: first reason".into());
        t.host.warn_while(Topic::Lease, Some("web02"), "w: of another".into());
        t.host.warn_while(Topic::Lease, vm, "w: second reason".into());
        assert_eq!(about(&t.host), ["w: it happened", "w: of another", "w: second reason"]);
        t.host.withdraw(Topic::Lease, vm);
        t.host.withdraw(Topic::Search, None);
        assert_eq!(about(&t.host), ["w: it happened", "w: of another"]);
        t.host.calm("web02");
        assert_eq!(about(&t.host), ["w: it happened"]);
    }
}
