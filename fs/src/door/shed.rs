//! The thread that has the kernel forget nodes before there are too many.
//!
//! Owns its loop; which nodes are of least use is the home's to say. It must be a thread of its own: the kernel
//! takes the lock of a folder to forget a name in it, and may hold that lock for a request that is being
//! served. Flow: it sleeps until there are many nodes, asks the kernel to forget the names of those that were
//! not looked up for longest, and the kernel then sends `forget` requests like any other.

use crate::home::Nodes;
use ::fuser::{INodeNo, Notifier};
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Time for the kernel's `forget` requests to arrive before there is another look.
const AFTER_BATCH: Duration = Duration::from_millis(5);

/// Time until there is another look when every node is in use.
const ALL_IN_USE: Duration = Duration::from_secs(1);

/// Starts it; it ends with [`Nodes::end`].
pub(super) fn start(nodes: Arc<Nodes>, notifier: Notifier) -> io::Result<JoinHandle<()>> {
    Builder::new().name("home-shed".into()).spawn(move || shed(&nodes, &notifier))
}

fn shed(nodes: &Nodes, notifier: &Notifier) {
    while nodes.wait_until_many() {
        while nodes.are_many() {
            let idle = nodes.least_used();
            let pause = if idle.is_empty() { ALL_IN_USE } else { AFTER_BATCH };
            for (parent, name) in idle {
                // A name that is gone, or in use after all, is no fault; at the unmount all fail.
                if let Err(error) = notifier.inval_entry(INodeNo(parent), &name) {
                    tracing::debug!("the kernel did not forget a name: {error}");
                }
            }
            if !nodes.pause(pause) {
                return;
            }
        }
    }
}
