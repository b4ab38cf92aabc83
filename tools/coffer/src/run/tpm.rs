//! `coffer key tpm`: the TPM seal of the native provider.

use super::{Context, kebab};
use crate::answer::Answer;
use crate::cli::TpmVerb;
use crate::error::CliError;
use crate::table::{clean, or_dash};
use crate::time::format_utc;
use hostd_api::kms::{SealToTpm, TpmStatus};

pub(super) fn run(context: &Context, verb: TpmVerb) -> Result<Answer, CliError> {
    let status = match verb {
        TpmVerb::Seal { pcrs } => context.api.tpm_seal(&SealToTpm { pcrs })?,
        TpmVerb::Status => context.api.tpm_status()?,
        TpmVerb::Remove => context.api.tpm_remove()?,
    };
    Ok(Answer::new(&status, show(&status)))
}

fn show(status: &TpmStatus) -> String {
    let pcrs: Vec<String> = status.pcrs.iter().map(u8::to_string).collect();
    let sealed = match status.sealed_at {
        Some(at) => format_utc(at),
        None if status.sealed => "yes".to_owned(),
        None => "no".to_owned(),
    };
    let lines = [
        ("TPM", status.tpm.clone()),
        ("sealed", sealed),
        ("PCRs", or_dash((!pcrs.is_empty()).then(|| pcrs.join(",")))),
        ("opens", or_dash(status.opens.map(|yes| if yes { "yes" } else { "no" }.to_owned()))),
        ("opened by", or_dash(status.opened_by.as_ref().map(kebab))),
        ("detail", status.detail.clone()),
    ];
    let line =
        |(name, value): &(&str, String)| format!("{:<11}{}\n", format!("{name}:"), clean(value));
    lines.iter().map(line).collect()
}
