//! `coffer key`.

use super::name_parser;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Verbs of keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// Show providers and keys: who can give keys, and what they are for.
    Status,
    /// Write the sealed backup of the native provider to a file, and tell hostd that it is safe.
    Backup {
        /// File to write, best on another machine or medium.
        file: PathBuf,
        /// Replace FILE when it exists.
        #[arg(long)]
        force: bool,
    },
    /// Give VMs a new key, or a new version of the key that OpenBao keeps for them; data is not rewritten (shallow recrypt).
    Rotate {
        /// Only this VM; all by default.
        #[arg(long, value_name = "NAME", value_parser = name_parser())]
        vm: Option<String>,
        /// Key to wrap by, PROVIDER/UID: one of `key status`; a new one for each VM by default.
        #[arg(long, value_name = "KEY-ID", value_parser = name_parser())]
        key: Option<String>,
        /// Do it although another host uses a VM.
        #[arg(long)]
        force: bool,
        /// Make no new key or version: only wrap by the newest version of the key that there is, and end what was left half done.
        #[arg(long, conflicts_with = "key")]
        rewrap: bool,
    },
    /// Take a key back at its key server: it encrypts nothing new, and still opens. Refused while a VM here uses it.
    Revoke {
        /// Id of the key, as `key status` shows it.
        #[arg(value_parser = name_parser())]
        key: String,
        /// Somebody else may know it.
        #[arg(long)]
        compromised: bool,
        /// A sentence for the log of the key server.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Destroy a key that was taken back, for good. Refused while a VM here uses it.
    Destroy {
        /// Id of the key, as `key status` shows it.
        #[arg(value_parser = name_parser())]
        key: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// The TPM of this host: starting hostd without the passphrase of the native provider.
    #[command(subcommand)]
    Tpm(TpmVerb),
    /// Key servers (KMIP, OpenBao): their health, and the set-up of trust.
    #[command(subcommand)]
    Provider(ProviderVerb),
}

/// Which provider a verb is about.
#[derive(Debug, Args)]
pub(crate) struct ProviderName {
    /// Name of the provider, where more than one has key servers.
    #[arg(id = "provider", long = "provider", value_name = "NAME", value_parser = name_parser())]
    pub(crate) name: Option<String>,
}

/// Verbs of the TPM seal.
#[derive(Debug, Subcommand)]
pub(crate) enum TpmVerb {
    /// Seal the key file to the TPM, so that hostd starts without its passphrase; the passphrase goes on opening it.
    Seal {
        /// Only while these PCRs have the values that they have now, for example 7 (Secure Boot) or 4,7.
        #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(0..24))]
        pcrs: Vec<u8>,
    },
    /// Show the seal, and try whether the TPM opens the key file now.
    Status,
    /// Remove the seal: the next start of hostd needs the passphrase.
    Remove,
}

/// Verbs of key servers.
#[derive(Debug, Subcommand)]
pub(crate) enum ProviderVerb {
    /// Check every server now: trust both ways, certificates, and a key that is really fetched.
    Status,
    /// Make a new private key, and print the request for its certificate.
    Csr {
        /// Name that the servers are to know this host by.
        #[arg(value_name = "COMMON-NAME", value_parser = name_parser())]
        name: String,
        /// Of which provider.
        #[command(flatten)]
        provider: ProviderName,
    },
    /// Take the certificate that answers the last request.
    Import {
        /// PEM file with the certificate.
        certificate: PathBuf,
        /// Of which provider.
        #[command(flatten)]
        provider: ProviderName,
    },
    /// Make a private key and a certificate that it signs itself; print the certificate for the server.
    SelfSigned {
        /// Name that the servers are to know this host by.
        #[arg(value_name = "COMMON-NAME", value_parser = name_parser())]
        name: String,
        /// Of which provider.
        #[command(flatten)]
        provider: ProviderName,
    },
    /// Take a certificate and its private key that were made elsewhere.
    Upload {
        /// PEM file with the certificate.
        certificate: PathBuf,
        /// PEM file with its private key, readable by its owner only.
        key: PathBuf,
        /// Of which provider.
        #[command(flatten)]
        provider: ProviderName,
    },
    /// Show the certificate of a server; trust it with --pin.
    Trust {
        /// A server of the configuration, HOST or HOST:PORT.
        #[arg(value_parser = name_parser())]
        server: String,
        /// SHA-256 of the certificate to trust, as the server itself tells it.
        #[arg(long, value_name = "SHA256")]
        pin: Option<String>,
        /// Of which provider.
        #[command(flatten)]
        provider: ProviderName,
    },
}
