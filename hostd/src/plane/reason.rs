//! Whose turn it is when a VM is locked.
//!
//! Owns the two tables from a lock code: to the one who must act, and to vSphere's name of the reason. Pure.

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

/// The name in vSphere's enum of reasons why a key is unavailable, where it has one.
pub(super) fn in_vsphere(code: LockCode) -> Option<&'static str> {
    match code {
        LockCode::KeyNotPushed => Some("KeyStateMissingInCache"),
        LockCode::KeyNotFound => Some("KeyStateMissingInKMS"),
        LockCode::ProviderNotConfigured => Some("KeyStateClusterInvalid"),
        LockCode::ProviderUnavailable => Some("KeyStateClusterUnreachable"),
        LockCode::LockedByOperator
        | LockCode::FetchFailed
        | LockCode::WrongKey
        | LockCode::SafeDamaged => None,
    }
}
