//! What can go wrong with a request, and what the API says of it.
//!
//! Owns the way from errors to status, code, message and remedy: the one place where errors become codes of this API. The shape is that of
//! hostd's API.

use crate::audit::LogError;
use crate::inventory::InventoryError;
use crate::pki::{CaError, JoinError};
use crate::rights::RightsError;
use crate::store::StoreError;
use hostd_api::error::{ApiError, ErrorCode};
use hyper::StatusCode;
use serde_json::Value;
use thiserror::Error;

/// Why a request was not done.
#[derive(Debug, Error)]
pub enum Fault {
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// There is no such path.
    #[error("there is no {0} in this API")]
    NoRoute(String),
    /// The inventory.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// Rights.
    #[error(transparent)]
    Rights(#[from] RightsError),
    /// A join.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// A certificate.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The audit log. Nothing is done without it.
    #[error(transparent)]
    Audit(#[from] LogError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fault of Coffer itself.
    #[error("internal fault: {0}")]
    Bug(String),
}

impl Fault {
    /// The request itself is wrong.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    /// HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.code_and_remedy().0 {
            ErrorCode::InvalidArgument => StatusCode::BAD_REQUEST,
            ErrorCode::Denied => StatusCode::FORBIDDEN,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::AlreadyExists | ErrorCode::InUse | ErrorCode::WrongState => {
                StatusCode::CONFLICT
            }
            ErrorCode::ProviderUnavailable | ErrorCode::Storage => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The body of the answer.
    #[must_use]
    pub fn body(&self) -> Value {
        let (code, remedy) = self.code_and_remedy();
        let error = ApiError { code, message: self.to_string(), remedy: remedy.into(), lock: None };
        serde_json::to_value(error).unwrap_or_default()
    }

    fn code_and_remedy(&self) -> (ErrorCode, &'static str) {
        match self {
            Self::Invalid(_) => (ErrorCode::InvalidArgument, "see GET /v1/openapi.json"),
            Self::NoRoute(_) => (ErrorCode::NotFound, "see GET /v1/openapi.json"),
            Self::Inventory(e) => inventory(e),
            Self::Rights(e) => rights(e),
            Self::Join(JoinError::Unknown | JoinError::Expired { .. }) => {
                (ErrorCode::Denied, "ask an administrator for another token")
            }
            Self::Join(JoinError::Life(_)) => (ErrorCode::InvalidArgument, "choose another life"),
            Self::Join(JoinError::Store(e)) | Self::Store(e) => store(e),
            Self::Ca(CaError::Request(_)) => (ErrorCode::InvalidArgument, "make another request"),
            Self::Audit(_) => (
                ErrorCode::Storage,
                "see the log of controld; nothing is done that cannot be written down",
            ),
            Self::Ca(_) | Self::Join(_) | Self::Bug(_) => {
                (ErrorCode::Internal, "see the log of controld, and report it")
            }
        }
    }
}

fn inventory(fault: &InventoryError) -> (ErrorCode, &'static str) {
    match fault {
        InventoryError::NotFound { .. } => (ErrorCode::NotFound, "look at the list"),
        InventoryError::Exists { .. } => (
            ErrorCode::AlreadyExists,
            "choose another name, or give the revision to change what is there",
        ),
        InventoryError::Changed { .. } => {
            (ErrorCode::WrongState, "read it again, and repeat with its revision")
        }
        InventoryError::Leaving { .. } | InventoryError::Retired { .. } => {
            (ErrorCode::WrongState, "choose another one")
        }
        InventoryError::NotEmpty { .. } | InventoryError::Needed { .. } => {
            (ErrorCode::InUse, "remove what needs it first")
        }
        InventoryError::TooManyKeys { .. } => (ErrorCode::InvalidArgument, "name fewer keys"),
        InventoryError::Damaged { .. } | InventoryError::Unsupported { .. } => {
            (ErrorCode::Internal, "see the log of controld")
        }
        InventoryError::Store(e) => store(e),
    }
}

fn rights(fault: &RightsError) -> (ErrorCode, &'static str) {
    match fault {
        RightsError::Refused(_) => {
            (ErrorCode::Denied, "ask an administrator for a role that has the privilege")
        }
        RightsError::NotFound(_) => (ErrorCode::NotFound, "look at the list"),
        RightsError::Exists(_) => (ErrorCode::AlreadyExists, "choose another name"),
        RightsError::Fixed(_) => (ErrorCode::InvalidArgument, "see GET /v1/openapi.json"),
        RightsError::Approval(_) => (ErrorCode::WrongState, "see GET /v1/approvals"),
        RightsError::Store(e) => store(e),
        RightsError::Damaged { .. } | RightsError::Random(_) => {
            (ErrorCode::Internal, "see the log of controld")
        }
    }
}

fn store(fault: &StoreError) -> (ErrorCode, &'static str) {
    match fault {
        StoreError::Conflict { .. } => (ErrorCode::WrongState, "read it again, and repeat"),
        StoreError::Uncertain { .. } => {
            (ErrorCode::Storage, "look whether it was done before you repeat it")
        }
        StoreError::Limit(_) => (ErrorCode::InvalidArgument, "make it smaller"),
        StoreError::Unavailable { .. } | StoreError::Io { .. } => {
            (ErrorCode::Storage, "see that the store is up, and try again")
        }
        _ => (ErrorCode::Internal, "see the log of controld, and report it"),
    }
}
