//! An NBD client that does nothing but stay connected, so that a disk is in use.

use crate::host::Host;
use crate::wait;
use std::process::{Child, Command, Stdio};

/// qemu-io, connected until it is dropped.
#[derive(Debug)]
pub struct Client(Child);

impl Client {
    /// Connects to an attached disk of `vm`, and waits until hostd counts the client.
    ///
    /// # Panics
    /// When it is not counted in time.
    #[must_use]
    pub fn connect(host: &Host, vm: &str, disk: &str) -> Self {
        let uri = host.uri(vm, disk);
        let mut qemu_io = Command::new("qemu-io");
        qemu_io.args(["-r", "-f", "raw", "-c", "sleep 120000", &uri]);
        qemu_io.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let client = Self(qemu_io.spawn().expect("qemu-io starts"));
        wait::until_true("the client is counted", || {
            let disks = host.json(&["disk", "list", vm]);
            let found = disks
                .as_array()
                .and_then(|all| all.iter().find(|one| one["name"] == disk).cloned());
            found.is_some_and(|found| found["attachment"]["clients"] == 1)
        });
        client
    }

    /// Has it not ended?
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn is_alive(&mut self) -> bool {
        self.0.try_wait().expect("a child can be waited for").is_none()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
