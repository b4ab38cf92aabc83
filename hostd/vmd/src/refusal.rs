//! Why a request of hostd was not done.
//!
//! Owns the way from an error of this process to the failure that hostd gets. Flow: whatever goes wrong in
//! `requests` becomes a [`Refusal`], and that the answer.

use hostd_api::error::ErrorCode;
use hostd_api::link::{Failure, Response};

/// A failure with its code and remedy.
#[derive(Debug)]
pub struct Refusal {
    /// Code of the control API.
    pub code: ErrorCode,
    /// Names the thing and the reason.
    pub message: String,
    /// What to do next.
    pub remedy: &'static str,
}

impl Refusal {
    /// hostd sent something that it should not have.
    pub fn invalid(message: impl Into<String>) -> Self {
        let remedy = "this is a fault of Coffer: please report it with the logs of hostd and vmd";
        Self { code: ErrorCode::InvalidArgument, message: message.into(), remedy }
    }

    /// The request does not fit what this vmd does now.
    pub fn wrong_state(message: impl Into<String>) -> Self {
        let remedy = "ask for the status of the VM first";
        Self { code: ErrorCode::WrongState, message: message.into(), remedy }
    }

    /// Any other code.
    pub fn new(code: ErrorCode, message: impl Into<String>, remedy: &'static str) -> Self {
        Self { code, message: message.into(), remedy }
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        Self::Failed(Failure {
            code: refusal.code,
            message: refusal.message,
            remedy: refusal.remedy.to_owned(),
        })
    }
}
