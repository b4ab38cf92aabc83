//! Routes of rights: roles, bindings, tokens, approvals.
//!
//! Owns what each of them reads and writes; every decision is that of `rights`.

use super::things::json_of;
use super::{Call, Fault};
use crate::inventory::Name;
use crate::rights::{Binding, Privilege, Role};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use utoipa::ToSchema;

type Done = Result<Value, Fault>;

/// Body of `role.put`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutRole {
    /// What it allows.
    #[schema(value_type = Vec<String>)]
    pub(super) privileges: BTreeSet<Privilege>,
}

/// Body of `token.make`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MakeToken {
    /// Whose it is.
    #[schema(value_type = String)]
    pub(super) name: Name,
    /// How long it is good for, in seconds.
    pub(super) life: u64,
}

pub(super) fn roles(call: &Call<'_>) -> Done {
    Ok(json!({ "items": call.service.rights.roles()? }))
}

pub(super) fn put_role(call: &Call<'_>) -> Done {
    let body: PutRole = call.body()?;
    let role = Role { name: call.part(0)?, privileges: body.privileges };
    call.service.rights.put_role(&role)?;
    json_of(&role)
}

pub(super) fn remove_role(call: &Call<'_>) -> Done {
    let name: Name = call.part(0)?;
    call.service.rights.remove_role(&name)?;
    Ok(json!({ "removed": name }))
}

pub(super) fn bindings(call: &Call<'_>) -> Done {
    Ok(json!({ "items": call.service.rights.bindings()? }))
}

pub(super) fn bind(call: &Call<'_>) -> Done {
    let binding: Binding = call.body()?;
    call.service.rights.bind(&binding)?;
    json_of(&binding)
}

pub(super) fn unbind(call: &Call<'_>) -> Done {
    let binding: Binding = call.body()?;
    call.service.rights.unbind(&binding)?;
    json_of(&binding)
}

pub(super) fn tokens(call: &Call<'_>) -> Done {
    let tokens = call.service.rights.tokens()?;
    let shown = tokens
        .iter()
        .map(|token| json!({ "id": token.id, "name": token.name, "until": token.until }));
    Ok(json!({ "items": shown.collect::<Vec<_>>() }))
}

pub(super) fn make_token(call: &Call<'_>) -> Done {
    let body: MakeToken = call.body()?;
    let made = call.service.rights.make_token(&body.name, body.life, call.now)?;
    let token = made.token;
    Ok(json!({ "id": token.id, "name": token.name, "until": token.until, "text": made.text }))
}

pub(super) fn remove_token(call: &Call<'_>) -> Done {
    let id: String = call.part(0)?;
    call.service.rights.remove_token(&id)?;
    Ok(json!({ "removed": id }))
}

pub(super) fn approvals(call: &Call<'_>) -> Done {
    Ok(json!({ "items": call.service.rights.approvals()? }))
}

pub(super) fn allow(call: &Call<'_>) -> Done {
    decide(call, true)
}

pub(super) fn refuse(call: &Call<'_>) -> Done {
    decide(call, false)
}

fn decide(call: &Call<'_>, allow: bool) -> Done {
    let id: String = call.part(0)?;
    json_of(&call.service.rights.decide(&call.pass, &id, allow, call.now)?)
}
