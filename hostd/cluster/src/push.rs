//! Sealing keys for a host.
//!
//! Owns the way from keys in this process to the body of a push; must not know how it travels. Flow: [`seal`] takes what the
//! host said of itself and the keys, and each is sealed for that host, that start of it, its own id and the generation.

use crypto::{HostPublicKey, Kek, KeyError, KeyId, PushContext};
use hostd_api::control::{HostIdentity, PushKeys, SealedKey};
use thiserror::Error;

/// Why keys cannot be sealed.
#[derive(Debug, Error)]
pub enum SealFault {
    /// The host shows a public key that is none.
    #[error("host {name}: {source}")]
    Host {
        /// Name of the host.
        name: String,
        /// What is wrong.
        source: KeyError,
    },
    /// A key could not be sealed.
    #[error("key {key} cannot be sealed to host {name}: {source}")]
    Key {
        /// The key.
        key: KeyId,
        /// Name of the host.
        name: String,
        /// What is wrong.
        source: KeyError,
    },
}

/// The body of a push of these keys to the host that said this of itself. `generation` is the state of the key list that
/// they are from.
///
/// # Errors
/// [`SealFault`].
pub fn seal<'a>(
    host: &HostIdentity,
    generation: u64,
    keys: impl IntoIterator<Item = (&'a KeyId, &'a Kek)>,
) -> Result<PushKeys, SealFault> {
    let name = || host.name.clone();
    let public: HostPublicKey =
        host.public_key.parse().map_err(|source| SealFault::Host { name: name(), source })?;
    let seal = |(key, kek): (&KeyId, &Kek)| {
        let context = PushContext {
            host: host.host_id.into_bytes(),
            start: host.boot_id.into_bytes(),
            key,
            generation,
        };
        let sealed = public.seal(kek, &context).map_err(|source| SealFault::Key {
            key: key.clone(),
            name: name(),
            source,
        })?;
        Ok(SealedKey { id: key.to_string(), sealed: sealed.to_string() })
    };
    let keys = keys.into_iter().map(seal).collect::<Result<_, _>>()?;
    Ok(PushKeys { host_id: host.host_id, boot_id: host.boot_id, generation, keys })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::{Arena, HostKey, SealedKek};
    use hostd_api::control::CryptoState;
    use uuid::Uuid;

    #[test]
    fn each_key_opens_at_that_host_under_its_own_id_only() {
        let arena = Arena::new(64 * 1024).unwrap();
        let host = HostKey::generate(&arena).unwrap();
        let identity = HostIdentity {
            host_id: Uuid::from_u128(1),
            boot_id: Uuid::from_u128(2),
            cluster: "prod".into(),
            name: "h1".into(),
            public_key: host.public().to_string(),
            generation: 0,
            version: "0".into(),
            crypto_state: CryptoState::Prepared,
            has: Vec::new(),
            wants: Vec::new(),
        };
        let ids: [KeyId; 2] = ["kmip/1".parse().unwrap(), "kmip/2".parse().unwrap()];
        let keks = [Kek::generate(&arena).unwrap(), Kek::generate(&arena).unwrap()];
        let push = seal(&identity, 5, ids.iter().zip(&keks)).unwrap();
        assert_eq!((push.keys.len(), push.generation), (2, 5));
        for (index, key) in push.keys.iter().enumerate() {
            let sealed: SealedKek = key.sealed.parse().unwrap();
            let context = |key| PushContext {
                host: identity.host_id.into_bytes(),
                start: identity.boot_id.into_bytes(),
                key,
                generation: 5,
            };
            let opened = host.open(&arena, &context(&ids[index]), &sealed).unwrap();
            assert_eq!(opened.check_value(), keks[index].check_value());
            assert!(host.open(&arena, &context(&ids[1 - index]), &sealed).is_err());
        }
        let wrong = HostIdentity { public_key: "00".into(), ..identity };
        let fault = seal(&wrong, 5, ids.iter().zip(&keks)).unwrap_err();
        assert!(fault.to_string().contains("host h1"), "{fault}");
    }
}
