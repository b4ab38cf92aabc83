//! The verbs without a TPM; those with one are in the integration tests.

use crate::control::api_error;
use crate::testing::TestHost;
use hostd_api::error::ErrorCode;
use hostd_api::kms::{SealToTpm, TpmOpener};

#[test]
fn without_a_seal_the_status_says_what_the_next_start_needs() {
    let t = TestHost::new();
    let status = t.host.tpm_status().unwrap();
    assert!(!status.sealed && status.opens.is_none() && status.pcrs.is_empty());
    assert_eq!(status.opened_by, Some(TpmOpener::Passphrase));
    assert!(status.detail.contains("leaves the provider closed"), "{}", status.detail);
    let error = api_error(&t.host.remove_seal().unwrap_err());
    assert_eq!(error.code, ErrorCode::NotFound, "{error}");
}

#[test]
fn a_pcr_that_does_not_exist_is_refused_before_the_tpm_is_asked() {
    let t = TestHost::new();
    let error = api_error(&t.host.seal_to_tpm(&SealToTpm { pcrs: vec![7, 24] }).unwrap_err());
    assert_eq!(error.code, ErrorCode::InvalidArgument, "{error}");
    assert!(error.remedy.contains("0 to 23"));
}

#[test]
fn without_the_provider_nothing_is_sealed() {
    let t = TestHost::new().restarted_without_keys();
    let error = api_error(&t.host.seal_to_tpm(&SealToTpm { pcrs: vec![] }).unwrap_err());
    assert_eq!(error.code, ErrorCode::ProviderUnavailable, "{error}");
    assert_eq!(t.host.tpm_status().unwrap().opened_by, None);
}
