//! The network port of a running VM.
//!
//! Owns the listening TCP socket and the opening of certificate and key; must not decide who has a port. Key bytes
//! are not read here: the vmd gets descriptors of the files, opened now, and reads them itself, so that a new
//! certificate counts from the next opening on.

use super::{Port, Service};
use crate::fault::Fault;
use crate::host::Host;
use crate::vm::Vm;
use hostd_api::error::ErrorCode;
use hostd_api::link::{Request, ServeTls};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Connections that may wait while the vmd is busy or being started again.
const BACKLOG: i32 = 64;

/// Permission bits that let others read a private key.
const OTHERS: u32 = 0o077;

impl Host {
    /// Brings the port of a service to what is set for its VM. A port that cannot be opened is a warning: the VM
    /// and its local sockets do not depend on it.
    pub(super) fn settle_tls(&self, vm: &Vm, service: &mut Service) {
        let outcome = match self.state.tls_port(vm.id) {
            Some(port) => self.open_tls(vm, service, port),
            None => self.close_tls(vm, service),
        };
        if let Err(e) = outcome {
            self.warn(
                Some(vm.name.as_str()),
                format!("VM {} runs without its network port: {e}", vm.name),
            );
        }
    }

    /// Opens `port` for all disks of a running VM, or has an open one take certificate, key and clients anew.
    ///
    /// # Errors
    /// Faults of the files, the socket and the link; what the vmd refuses.
    pub(crate) fn open_tls(&self, vm: &Vm, service: &mut Service, port: u16) -> Result<(), Fault> {
        let tls = &self.config.tls;
        let paths = tls.files().ok_or_else(|| {
            Fault::refused(
                ErrorCode::WrongState,
                "this host has no certificate for network ports",
                "set certificate, key and client_ca in [tls] of the configuration of hostd",
            )
        })?;
        let address = SocketAddr::new(tls.listen, port);
        if service.tls.as_ref().is_some_and(|open| open.address != address) {
            self.close_tls(vm, service)?;
        }
        let [certificate, key, authorities] = paths;
        let files = [open(certificate)?, open_key(key)?, open(authorities)?];
        let listener = match &service.tls {
            Some(open) => open.listener.try_clone().map_err(|e| unheard(address, &e))?,
            None => listen(address)?,
        };
        let request = Request::ServeTls(ServeTls {
            address,
            clients: tls.clients_of(&vm.name),
            max_connections: self.config.limits.tls_connections,
        });
        let [certificate, key, authorities] = &files;
        let fds = [listener.as_fd(), certificate.as_fd(), key.as_fd(), authorities.as_fd()];
        service.up(vm)?.call(&request, &fds)?;
        service.tls = Some(Port { address, listener });
        Ok(())
    }

    /// Closes the port of a running VM, if it is open.
    ///
    /// # Errors
    /// Faults of the link; the port stays open then.
    pub(crate) fn close_tls(&self, vm: &Vm, service: &mut Service) -> Result<(), Fault> {
        if service.tls.is_some() && !service.has_failed() {
            service.up(vm)?.call(&Request::StopTls, &[])?;
        }
        service.tls = None;
        Ok(())
    }
}

/// A listening TCP socket. A restart must not wait until connections of the last run are forgotten
/// (`SO_REUSEADDR`, socket(7)).
fn listen(address: SocketAddr) -> Result<OwnedFd, Fault> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let make = || {
        let fd = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&fd, true)?;
        rustix::net::bind(&fd, &address)?;
        rustix::net::listen(&fd, BACKLOG)?;
        Ok::<_, rustix::io::Errno>(fd)
    };
    make().map_err(|e| unheard(address, &e.into()))
}

fn unheard(address: SocketAddr, e: &std::io::Error) -> Fault {
    // socket(2), and what a service under systemd is told that may not use the network.
    let remedy = if e.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) {
        "allow hostd the network: RestrictAddressFamilies= in its systemd unit, see docs/configuration.md"
    } else {
        "choose another port or address, see [tls] in the configuration of hostd"
    };
    Fault::refused(ErrorCode::HostLimit, format!("cannot listen on {address}: {e}"), remedy)
}

fn open(path: &Path) -> Result<File, Fault> {
    File::open(path).map_err(Fault::io("open", path))
}

/// The private key, which nobody but its owner may be able to read.
fn open_key(path: &Path) -> Result<File, Fault> {
    let file = open(path)?;
    let mode = file.metadata().map_err(Fault::io("open", path))?.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(Fault::refused(
            ErrorCode::WrongState,
            format!("the private key {} can be read by others (mode {mode:o})", path.display()),
            format!("run `chmod 600 {}`", path.display()),
        ));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::refused;

    #[test]
    fn whoever_may_not_use_the_network_is_told_where_to_allow_it() {
        let address = "127.0.0.1:10810".parse().unwrap();
        let remedy = |errno: Errno| refused::<()>(Err(unheard(address, &errno.into()))).remedy;
        assert!(remedy(Errno::AFNOSUPPORT).contains("RestrictAddressFamilies="));
        assert!(remedy(Errno::ADDRINUSE).contains("another port"));
    }
}
