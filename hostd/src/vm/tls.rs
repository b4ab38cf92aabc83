//! Giving a VM a network port, and taking it away.
//!
//! Owns the choice of the port and that it is remembered; `service` opens it. The setting belongs to this host, not to
//! the VM: ports and certificates are the host's.

use super::Vm;
use crate::fault::Fault;
use crate::host::Host;
use hostd_api::error::ErrorCode;
use hostd_api::types::{SetTls, TlsInfo, VmInfo};
use std::net::SocketAddr;

impl Host {
    /// `POST /v1/vms/{vm}/tls`. A VM that does not run has its port opened when it does.
    ///
    /// # Errors
    /// `wrong-state` without a certificate, `host-limit` when no port is left or it cannot be opened; faults of the
    /// files, of the state file and of the vmd. The setting is then as it was.
    pub fn set_tls(&self, name: &str, request: &SetTls) -> Result<VmInfo, Fault> {
        let vm = self.inventory.get(name)?;
        let mut inner = self.enter(&vm)?;
        let before = self.state.tls_port(vm.id);
        let port = if request.on { Some(self.choose_port(&vm, request.port)?) } else { None };
        let outcome = match (&mut inner.service, port) {
            (Some(service), Some(port)) => self.open_tls(&vm, service, port),
            (Some(service), None) => self.close_tls(&vm, service),
            (None, _) => Ok(()),
        };
        match outcome {
            Ok(()) => self.state.set_tls_port(vm.id, port)?,
            Err(e) => {
                self.state.set_tls_port(vm.id, before)?;
                return Err(e);
            }
        }
        Ok(self.vm_info(&vm, &mut inner))
    }

    fn choose_port(&self, vm: &Vm, wanted: Option<u16>) -> Result<u16, Fault> {
        let tls = &self.config.tls;
        if tls.files().is_none() {
            return Err(Fault::wrong_state(
                "this host has no certificate for network ports",
                "set certificate, key and client_ca in [tls] of the configuration of hostd",
            ));
        }
        let (first, last) = (tls.ports.0.start(), tls.ports.0.end());
        if let Some(port) = wanted.filter(|port| !tls.ports.0.contains(port)) {
            return Err(Fault::invalid(
                format!("port {port} is not among those of this host, {first} to {last}"),
                "choose another, or change ports in [tls] of the configuration of hostd",
            ));
        }
        let port = self.state.assign_tls_port(vm.id, wanted, tls.ports.0.clone())?;
        port.ok_or_else(|| {
            let which = wanted.map_or(format!("every port from {first} to {last}"), |port| {
                format!("port {port}")
            });
            Fault::refused(
                ErrorCode::HostLimit,
                format!("{which} belongs to another VM"),
                "take it from a VM that does not need it, or change ports in [tls]",
            )
        })
    }

    /// The port of a VM as the API shows it; `open` is where it is open, with so many clients.
    pub(super) fn tls_info(
        &self,
        vm: &Vm,
        open: Option<SocketAddr>,
        clients: u32,
    ) -> Option<TlsInfo> {
        let set = || {
            let port = self.state.tls_port(vm.id)?;
            Some(SocketAddr::new(self.config.tls.listen, port))
        };
        let address = open.or_else(set)?.to_string();
        Some(TlsInfo { address, open: open.is_some(), clients })
    }
}
