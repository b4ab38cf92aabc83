//! KMIP against others: the conversations of the standard, a server that misbehaves, and PyKMIP.

mod cluster;
mod conversations;
mod misbehaving;
mod names;
mod oracle;
mod pki;
mod pykmip;
mod server;
mod session;
mod store;
mod trust;
mod xml;
