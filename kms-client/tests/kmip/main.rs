//! KMIP against others: the conversations of the standard, a server that misbehaves, and PyKMIP.

mod conversations;
mod names;
mod pki;
mod server;
mod session;
mod store;
mod xml;
