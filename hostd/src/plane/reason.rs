//! Whose turn it is when a VM is locked.
//!
//! Owns the table from a lock code to the one who must act. Pure; it must not know where a code comes from.

use hostd_api::control::Actor;
use hostd_api::error::LockCode;

/// Who must act.
pub(super) fn who(code: LockCode) -> Actor {
    match code {
        LockCode::KeyNotPushed => Actor::ControlPlane,
        LockCode::LockedByOperator | LockCode::ProviderNotConfigured => Actor::HostOperator,
        LockCode::KeyNotFound
        | LockCode::ProviderUnavailable
        | LockCode::FetchFailed
        | LockCode::WrongKey => Actor::KeyAdministrator,
        LockCode::SafeDamaged => Actor::StorageAdministrator,
    }
}
